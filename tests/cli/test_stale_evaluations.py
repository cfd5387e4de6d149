"""Evaluations of policies that were trained anew are left out of reports, and said."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pixio_robot.cli.report import main as report
from pixio_robot.cli.stages.stage import stamp_path
from pixio_robot.cli.stale_evaluations import find_stale_evaluations
from pixio_robot.files import write_json


def policy_at(path: Path, weights: str) -> str:
    """A policy directory with these weights; returns their fingerprint."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_text(weights)
    return hashlib.sha256(weights.encode()).hexdigest()[:16]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_evaluation: Callable[..., None]) -> Path:
    """A run with two policies and their evaluations, its paths relative to the working directory."""
    monkeypatch.chdir(tmp_path)
    run = Path("mine")
    for name in ("kept", "anew"):
        fingerprint = policy_at(run / "policies" / name / "model", name)
        out, checkpoint = run / "evaluations" / name, run / "policies" / name
        write_evaluation(out, label=name, fingerprint=fingerprint)
        stamp = {"stage": "evaluate", "out": str(out), "settings": {"checkpoint": str(checkpoint)}}
        stamp |= {"command": "", "seconds": 1.0, "finished": True, "finished_at": ""}
        write_json(stamp_path(out), stamp)
    return run


def test_an_evaluation_is_stale_when_its_policy_has_other_weights(run: Path) -> None:
    evaluations = sorted((run / "evaluations").glob("*/"))
    assert find_stale_evaluations(evaluations) == []
    policy_at(run / "policies" / "anew" / "model", "other")
    assert find_stale_evaluations(evaluations) == [run / "evaluations" / "anew"]
    run.rename("moved")
    assert find_stale_evaluations([Path("moved/evaluations/anew"), Path("moved/evaluations/kept")]) == [
        Path("moved/evaluations/anew")
    ]
    shutil.rmtree("moved/policies")
    assert find_stale_evaluations(Path("moved/evaluations").glob("*/")) == []


def test_a_copy_without_its_policy_is_not_held_against_another_at_that_path(run: Path) -> None:
    shutil.copytree(run / "evaluations", "results")
    policy_at(run / "policies" / "anew" / "model", "of another machine")
    assert find_stale_evaluations(Path("results").glob("*/")) == []


def test_checkpoints_in_a_series_are_compared_with_those_of_their_step(
    run: Path, write_evaluation: Callable[..., None]
) -> None:
    series, checkpoint = run / "evaluations" / "kept", run / "policies" / "kept" / "checkpoints" / "step_00000002"
    (series / "summary.json").unlink()
    write_evaluation(series / "step_00000002", training_step=2, fingerprint="of other weights")
    assert find_stale_evaluations([series]) == []
    checkpoint.mkdir(parents=True)
    assert find_stale_evaluations([series]) == [series]


def test_reports_leave_them_out_and_say_so(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy_at(run / "policies" / "anew" / "model", "other")
    shutil.copytree(run, "copy")
    for words in ([f"run={run}"], [f"sweep={run}"], [f"compare=[{run},copy]"]):
        assert report(words) == 0
        printed = capsys.readouterr().out
        assert "evaluations/anew" in printed
        assert "whose policy was trained anew since: evaluate it again" in printed
    assert [row["name"] for row in json.loads((run / "results.json").read_text())["evaluations"]] == ["kept"]
    assert "anew is not included: its policy was trained anew since" in (run / "report.md").read_text()
    assert "anew: left out" in (run / "report.html").read_text()
    assert "anew" not in (run / "sweep.csv").read_text()
