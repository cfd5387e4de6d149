"""`-m` runs a command once for each combination of values."""

import json
import sys
from pathlib import Path

import pytest
from demo_data import make_store

from pixio_robot.cli.main import main


def test_one_run_for_each_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_store(tmp_path / "demos")
    words = ["train", "-m", "run=.", "data=demos", "encoder=none", "policy=bc", "loop.steps=2", "batch_size=2,3"]
    monkeypatch.setattr(sys, "argv", ["pixio-robot", *words, "device=cpu", "out=out/${batch_size}"])
    assert main() == 0
    assert [json.loads((tmp_path / f"out/{n}/result.json").read_text())["steps"] for n in (2, 3)] == [2, 2]
    assert not (tmp_path / "outputs").exists()
    assert not (tmp_path / "multirun").exists()


def test_a_run_that_fails_fails_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [
        "train",
        "-m",
        "run=.",
        "data=demos",
        "policy=bc",
        "encoder=none",
        "batch_size=2,-1",
        "out=o/${batch_size}",
    ]
    monkeypatch.setattr(sys, "argv", ["pixio-robot", *words])
    assert main() == 2
    assert "demos" in capsys.readouterr().err
