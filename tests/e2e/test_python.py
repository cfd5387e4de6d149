"""docs/python.md, block for block: its commands, its Python, and its package of a policy, installed as pip would."""

import contextlib
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from site_packages import lay_down

from pixio_robot.cli.main import dispatch
from pixio_robot.vision.encoders.plugin_encoder import GROUP as ENCODERS
from policies.plugins import ENTRY_POINT_GROUP
from policies.registry import POLICIES

TOKEN = "a-token-for-tests"
PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def blocks(opening: str) -> list[str]:
    return re.findall(rf"^```{re.escape(opening)}\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def smooth_policy(tmp_path, monkeypatch):
    project = tomllib.loads(blocks("toml file=pyproject.toml")[0])["project"]
    modules = {"smooth_policy": blocks("python file=smooth_policy.py")[0]}
    lay_down(
        tmp_path / "site", project["name"], project["entry-points"][ENTRY_POINT_GROUP], modules, project["version"]
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield
    POLICIES.pop("smooth", None)
    sys.modules.pop("smooth_policy", None)


@pytest.fixture
def my_encoders(tmp_path, monkeypatch):
    project = tomllib.loads(blocks("toml file=encoders/pyproject.toml")[0])["project"]
    modules = {"my_encoders": blocks("python file=my_encoders.py")[0]}
    points = project["entry-points"][ENCODERS]
    lay_down(tmp_path / "more", project["name"], points, modules, project["version"], ENCODERS)
    monkeypatch.syspath_prepend(str(tmp_path / "more"))
    yield
    sys.modules.pop("my_encoders", None)


@contextlib.contextmanager
def served(checkpoint: str) -> Iterator[str]:
    command = [Path(sys.executable).with_name("pixio-robot"), "serve", f"checkpoint={checkpoint}", "port=0"]
    with subprocess.Popen([*command, f"token={TOKEN}"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().split(" at ")[1].split(",")[0]
        finally:
            server.terminate()


@pytest.mark.slow
@pytest.mark.sim
@pytest.mark.timeout(900)
def test_the_page_runs_from_top_to_bottom(tmp_path, monkeypatch, smooth_policy, my_encoders, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> None:
        assert dispatch(list(words)) == 0

    for line in blocks("console test")[0].splitlines():
        run(*shlex.split(line.removeprefix("$ pixio-robot ")))
    names: dict = {"__name__": "page"}
    for number, block in enumerate(blocks("python test")):
        exec(compile(block, f"docs/python.md, block {number}", "exec"), names)
    with served("runs/py/policies/bc") as names["address"]:
        names["token"] = TOKEN
        exec(compile(blocks("python served")[0], "docs/python.md, on the robot", "exec"), names)
    assert names["done"]
    assert names["vector"].shape == (5, 128)
    assert len(names["results"]) == 6
    # The method of one's own, through the commands.
    capsys.readouterr()
    run("train", "--help", "policy=smooth")
    text = " ".join(capsys.readouterr().out.replace("#", "").split())  # however wide the terminal is
    assert "* smooth" in text
    assert "Behaviour cloning whose chunks are smooth. (smooth-policy 0.1.0)" in text
    assert "Weight of the penalty on jumps between consecutive actions" in text
    short = ["experiment=smoke", "run=runs/py", "loop.steps=6", "loop.log_every=2"]
    run("train", *short, "policy=smooth", "policy.smoothness=0.3", "out=runs/py/policies/smooth")
    saved = json.loads(Path("runs/py/policies/smooth/model/config.json").read_text())
    assert saved["package"] == {"name": "smooth-policy", "version": "0.1.0"}
    assert saved["config"]["smoothness"] == 0.3
    playing = ["experiment=smoke", "run=runs/py", "env=tabletop_reach", "env.horizon=20", "episodes=2", "workers=1"]
    run("evaluate", *playing, "checkpoint=runs/py/policies/smooth", "videos=0")
    results = json.loads(Path("runs/py/evaluations/smooth/summary.json").read_text())
    assert results["policy"] == "smooth"
    run("report", "run=runs/py")
    assert "smooth" in Path("runs/py/report.html").read_text()
    # The encoder of one's own.
    mine = ["encoder=installed", "encoder.name=stripes", "encoder.options={width: 64}", "encoder.pretrained=false"]
    run("train", *short, *mine, "adapt.mode=full", "out=runs/py/policies/stripes")
    saved = json.loads(Path("runs/py/policies/stripes/model/config.json").read_text())
    assert saved["encoder"]["description"]["config"]["package"] == "my-encoders"
    assert saved["extra"]["label"] == "stripes from scratch"
    run("evaluate", *playing, "checkpoint=runs/py/policies/stripes", "videos=0")


def test_every_python_block_is_run():
    openings = re.findall(r"^```(python.*)$", PAGE.read_text(), re.MULTILINE)
    files = {"python file=smooth_policy.py", "python file=my_encoders.py"}
    assert set(openings) == {"python test", "python served", *files}
    assert openings.index("python served") == openings.index("python file=smooth_policy.py") - 1, "it runs last"


def test_the_links_of_the_page_lead_somewhere():
    for link in re.findall(r"\]\((?!http)([^)#]+)", PAGE.read_text()):
        assert (PAGE.parent / link).is_file(), link
