"""What results say they were made with."""

import os
import subprocess
import sys

import pytest

from pixio_robot import machine
from pixio_robot.cli.provenance import describe_environment


def test_cores_are_those_that_the_container_lets_us_use(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    monkeypatch.setattr(machine, "CGROUP_LIMIT", tmp_path / "cpu.max")
    assert describe_environment()["cpu"].endswith(", 3 cores")


def test_torch_is_not_imported_to_find_no_gpu() -> None:
    code = (
        "import sys; from pixio_robot.cli import provenance; provenance.GPU_DEVICE_NODES = ()\n"
        "print(provenance.describe_environment()['device'], 'torch' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "CPU False"
