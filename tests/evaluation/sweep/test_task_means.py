"""Means over tasks: which rows have one, what its interval covers, and where it is shown."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pixio_robot.evaluation.config import EvaluateConfig
from pixio_robot.evaluation.evaluate import evaluate
from pixio_robot.evaluation.results import EvaluatedPolicy
from pixio_robot.evaluation.statistics import wilson_interval
from pixio_robot.evaluation.sweep.collect import SweepRow, collect_sweep, student_interval
from pixio_robot.evaluation.sweep.page import write_sweep
from pixio_robot.evaluation.sweep.task_means import average_tasks


@pytest.fixture
def row(line_pool, seeking_actor, tmp_path: Path) -> SweepRow:
    who = EvaluatedPolicy(name="s", label="Seeker", policy="bc", encoder="none", training_seed=0, fingerprint="a")
    evaluate(line_pool(4), seeking_actor(), who, EvaluateConfig(episodes=10, videos=0), tmp_path / "s")
    (row,) = collect_sweep(tmp_path, lambda path: {})
    return row


def of(row: SweepRow, task: str, successes: int, label: str = "Seeker") -> SweepRow:
    low, high = wilson_interval(successes, 100)
    return dataclasses.replace(
        row, task=task, label=label, rates=[successes / 100], rate=successes / 100, low=low, high=high
    )


def test_rows_that_all_tasks_have_are_averaged(row: SweepRow) -> None:
    assert average_tasks([of(row, "Lift", 90), of(row, "Lift", 20, "Other")]) == []
    rows = [of(row, "Lift", 90), of(row, "Stack", 50), of(row, "Lift", 99, "Of Lift only")]
    twice = [of(row, "Lift", 10, "Twice"), of(row, "Lift", 20, "Twice")]
    (mean,) = average_tasks([*rows, *twice])
    assert (mean.name, mean.by_task, mean.rate) == ("Seeker (bc)", {"Lift": 0.9, "Stack": 0.5}, pytest.approx(0.7))
    assert mean.low > (rows[0].low + rows[1].low) / 2, "two tasks are known better than one"
    better = [of(row, task, 95, "Better") for task in ("Lift", "Stack")]
    assert [mean.name for mean in average_tasks([*rows, *better])] == ["Better (bc)", "Seeker (bc)"]


def test_the_interval_covers_the_mean_as_often_as_it_says(row: SweepRow) -> None:
    random, rates, covered = np.random.default_rng(0), [0.97, 0.6, 0.1], 0
    for _ in range(2000):
        (mean,) = average_tasks([of(row, f"T{i}", random.binomial(100, rate)) for i, rate in enumerate(rates)])
        covered += mean.low <= sum(rates) / 3 <= mean.high
    assert 0.935 < covered / 2000 < 0.97


def test_luck_of_a_training_seed_in_all_tasks_is_seen(row: SweepRow) -> None:
    def several(task: str, counts: list[int]) -> SweepRow:
        runs = [
            dataclasses.replace(row.runs[0], training_seed=seed, rate=count / 100) for seed, count in enumerate(counts)
        ]
        return dataclasses.replace(of(row, task, 50), runs=runs, rates=[run.rate for run in runs])

    (mean,) = average_tasks([several("Lift", [30, 50, 70]), several("Stack", [34, 50, 66])])
    assert mean.rates == pytest.approx([0.32, 0.5, 0.68])
    assert (mean.low, mean.high) == pytest.approx(student_interval(mean.rates))
    assert mean.interval.endswith("or Student's t over 3 training seeds where that is wider")
    (mean,) = average_tasks([several("Lift", [30, 50, 70]), several("Stack", [50, 50])])
    assert mean.rates == []


def test_the_page_and_the_table_show_them(row: SweepRow, tmp_path: Path) -> None:
    rows = [of(row, "Lift", 90), of(row, "Stack", 50)]
    page = write_sweep(rows, "Rates", tmp_path / "sweep.html").read_text()
    assert "Mean over tasks" in page
    assert "Lift 90.0 %, Stack 50.0 %" in page
    assert "| Seeker (bc) | 90.0 % | 50.0 % | 70.0 % |" in (tmp_path / "sweep.md").read_text()
    assert "Mean over tasks" not in write_sweep(rows[:1], "Rates", tmp_path / "one.html").read_text()
