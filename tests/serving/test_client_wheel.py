"""The client's own distribution: what it holds, and that it plays a served policy where nothing else is installed."""

from __future__ import annotations

import ast
import asyncio
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from demo_data import SPEC

from pixio_robot.serving.server import PolicyServer, ServeConfig, ServedPolicy

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "client"
TOKEN = "a-token-for-tests"

PLAY = """
import importlib.abc, sys

class NotInstalled(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "zarr", "mujoco", "hydra", "omegaconf", "gymnasium", "envs", "policies"):
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, NotInstalled())
site, address, token = sys.argv[1:]
sys.path.insert(0, site)
import numpy as np
from pixio_robot.serving import PolicyClient
from pixio_robot.types import Frame
assert sys.modules["pixio_robot"].__file__.startswith(site)
with PolicyClient(address, token) as policy:
    policy.reset(seed=3)
    print(policy.spec.task, policy.act(Frame({}, np.zeros(3, np.float32))).tolist())
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, as installed."""
    out = tmp_path_factory.mktemp("client")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    result = subprocess.run(command, cwd=CLIENT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    zipfile.ZipFile(next(out.glob("*.whl"))).extractall(out / "site")
    return out / "site"


def test_it_plays_a_served_policy_without_torch(site: Path) -> None:
    served = ServedPolicy(
        spec=SPEC, cameras=[], observation_steps=1, execute=1, plan=lambda *_: np.full((1, 2), 0.5, np.float32)
    )

    async def talk() -> subprocess.CompletedProcess[str]:
        ready = asyncio.get_running_loop().create_future()
        running = asyncio.create_task(PolicyServer(served, ServeConfig(port=0, warmup=0), TOKEN).run(ready.set_result))
        command = [sys.executable, "-c", PLAY, str(site), await ready, TOKEN]
        result = await asyncio.to_thread(subprocess.run, command, cwd=site, capture_output=True, text=True)
        running.cancel()
        return result

    result = asyncio.run(talk())
    assert result.returncode == 0, result.stderr
    assert result.stdout == "Test [0.5, 0.5]\n"


def test_its_modules_are_written_in_the_python_that_it_asks_for(site: Path) -> None:
    oldest = _project(CLIENT)["requires-python"].removeprefix(">=")
    version = tuple(map(int, oldest.split(".")))
    modules = sorted(site.rglob("*.py"))
    assert site / "pixio_robot" / "serving" / "client.py" in modules
    for module in modules:
        ast.parse(module.read_text(), str(module), feature_version=(version[0], version[1]))


def test_it_goes_with_the_version_that_serves() -> None:
    whole, client = _project(ROOT), _project(CLIENT)
    assert client["dynamic"] == whole["dynamic"] == ["version"]  # both from pixio_robot/__init__.py
    assert client["license"] == whole["license"]
    assert set(whole["optional-dependencies"]["serve"]) <= set(client["dependencies"])


@pytest.mark.slow
def test_pip_installs_it_alone(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "robot"], check=True)
    python = tmp_path / "robot" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", CLIENT], check=True, cwd=tmp_path)
    found = subprocess.run([python, "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True)
    names = {line.split("==")[0].lower() for line in found.stdout.splitlines()}
    assert names - {"pip", "setuptools"} == {"pixio-robot-client", "numpy", "msgpack", "websockets"}
    code = "from pixio_robot.serving import PolicyClient; from pixio_robot.types import Frame"
    subprocess.run([python, "-c", code], check=True, cwd=tmp_path)


def _project(directory: Path) -> dict:
    return tomllib.loads((directory / "pyproject.toml").read_text())["project"]
