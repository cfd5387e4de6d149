"""Policies kept by what they do on held-out episodes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pixio_robot.errors import UserError
from pixio_robot.training.best_checkpoints import BestCheckpoints
from pixio_robot.training.imitate import ImitateConfig


class Run:
    """What is validated and saved at each step; the value of a step is a function of it."""

    def __init__(self, directory: Path, values: dict[int, float], keep: int = 2) -> None:
        self.directory, self.values, self.step = directory, values, 0
        self.best = BestCheckpoints(directory, keep, "validation_loss", self.validate, self.save)

    def validate(self, step: int) -> dict[str, float]:
        self.step = step
        return {"validation_loss": self.values[step], "validation_action_error": 0.0}

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "model.txt").write_text(str(self.step))

    def go(self, *steps: int) -> None:
        for step in steps:
            assert self.best(step)["validation_loss"] == self.values[step]

    def kept(self) -> list[int]:
        steps = json.loads((self.directory / "best" / "ranking.json").read_text())["kept"]
        models = {path.parent.name: path.read_text() for path in self.directory.glob("best/step_*/model.txt")}
        assert models == {f"step_{step:08d}": str(step) for step in steps}
        assert len(list((self.directory / "best").iterdir())) == len(steps) + 1
        return steps


def test_lowest_values_are_kept_and_ties_go_to_the_later_step(tmp_path: Path) -> None:
    run = Run(tmp_path, {10: 3.0, 20: 1.0, 30: 2.0, 40: 1.0, 50: 5.0})
    run.go(10)
    assert run.kept() == [10]
    run.go(20, 30)
    assert run.kept() == [20, 30]
    run.go(40, 50)
    assert run.kept() == [40, 20]
    ranking = json.loads((tmp_path / "best" / "ranking.json").read_text())
    assert [validation["step"] for validation in ranking["looks"]] == [10, 20, 30, 40, 50]


def test_resumed_run_keeps_the_same_best_checkpoints(tmp_path: Path) -> None:
    run = Run(tmp_path, {10: 2.0, 20: 2.5, 30: 1.0, 40: 0.5})
    run.go(10, 20, 30)
    # Its last checkpoint was of before step 20, and this time 20 and 30 fare worse.
    again = Run(tmp_path, {20: 4.0, 30: 5.0, 40: 3.0})
    (tmp_path / "best" / ".tmp-step_00000030-abc").mkdir()
    again.go(20)
    assert again.kept() == [10, 20]
    again.go(30, 40)
    assert again.kept() == [10, 40]


def test_checkpoints_removed_before_a_crash_are_not_ranked_again(tmp_path: Path) -> None:
    run = Run(tmp_path, {10: 2.0, 20: 1.0}, keep=1)
    run.go(10, 20)
    again = Run(tmp_path, {20: 3.0, 30: float("nan"), 40: 4.0}, keep=1)
    again.go(20)
    assert again.kept() == [20]
    assert again.best(30)["validation_loss"] != again.best(30)["validation_loss"]
    again.go(40)
    assert again.kept() == [20]


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(UserError, match="keep_best=-1"):
        ImitateConfig(keep_best=-1)
    with pytest.raises(UserError, match="Unknown best_by 'loss'"):
        ImitateConfig(best_by="loss")
