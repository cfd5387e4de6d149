"""scripts/bootstrap on a machine that is set up but for what compiling on its GPU takes."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ("bash", "cat", "cut", "dirname", "sha256sum", "touch", "env", "xargs", "echo")


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """With a driver and without a compiler; its `bin` is all of the PATH."""
    for folder in ("bin", "scripts", ".venv/bin"):
        (tmp_path / folder).mkdir(parents=True)
    for tool in TOOLS:
        (tmp_path / "bin" / tool).symlink_to(str(shutil.which(tool)))
    program(tmp_path / "bin/nvidia-smi", "")
    shutil.copy(ROOT / "scripts/bootstrap", tmp_path / "scripts")
    files = b""
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text(name)
        files += name.encode()
    (tmp_path / ".venv/.bootstrapped").write_text(hashlib.sha256(files).hexdigest())
    (tmp_path / ".venv/.renders").touch()
    program(tmp_path / ".venv/bin/pixio-robot", "")
    (tmp_path / "headers").touch()
    program(tmp_path / ".venv/bin/python", f"[ -e {tmp_path}/headers ] || echo python3.12-dev")
    return tmp_path


def bootstrap(machine: Path, **environment: str) -> str:
    result = subprocess.run(
        ["bash", machine / "scripts/bootstrap"],
        env={"PATH": str(machine / "bin"), "HOME": str(machine)} | environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stderr


def test_where_nothing_may_be_installed_it_says_what_to_install(machine: Path) -> None:
    assert "apt-get install -y gcc libc6-dev)" in bootstrap(machine)
    (machine / "headers").unlink()
    assert "apt-get install -y gcc libc6-dev python3.12-dev)" in bootstrap(machine)


def test_headers_are_looked_for_where_python_has_them(machine: Path) -> None:
    program(machine / "bin/gcc", "")
    (machine / ".venv/bin/python").unlink()
    (machine / ".venv/bin/python").symlink_to(sys.executable)
    there = Path(sysconfig.get_path("include", "posix_prefix"), "Python.h").is_file()
    assert (bootstrap(machine) == "") == there


def test_a_compiler_and_headers_are_enough(machine: Path) -> None:
    program(machine / "bin/clang", "")
    assert bootstrap(machine) == ""
    assert "needs a C compiler" in bootstrap(machine, CC="icc")
    (machine / "bin/clang").rename(machine / "bin/icc")
    assert bootstrap(machine, CC="icc") == ""
    (machine / "headers").unlink()
    assert "apt-get install -y python3.12-dev)" in bootstrap(machine, CC="icc")


def test_what_is_missing_is_installed_where_that_may_be(machine: Path) -> None:
    installed = machine / "installed"
    gcc = machine / "bin/gcc"
    (machine / "bin/ln").symlink_to(str(shutil.which("ln")))
    program(
        machine / "bin/apt-get", f'echo "$@" >>{installed}; [ "$1" = update ] || ln -s {machine}/bin/nvidia-smi {gcc}'
    )
    program(machine / "bin/id", "echo 0")
    assert "needs a C compiler" not in bootstrap(machine)
    assert "gcc libc6-dev" in installed.read_text()
    assert bootstrap(machine) == ""


@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="has a driver")
def test_without_a_driver_nothing_is_asked(machine: Path) -> None:
    (machine / "bin/nvidia-smi").unlink()
    assert bootstrap(machine) == ""
