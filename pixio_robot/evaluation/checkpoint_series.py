"""Evaluations of all checkpoints of one training run: the last, the mean of the last ten, and the best.

Several published tables report the best of k checkpoints, selected on the very episodes it is reported on. This is
biased upwards, the more so the more checkpoints there are, so it is never reported alone here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from pixio_robot.errors import UserError
from pixio_robot.evaluation.results import SUMMARY, EvaluationSummary, read_summary
from pixio_robot.files import write_json

SERIES = "checkpoints.json"
AVERAGED_CHECKPOINTS = 10
"""As diffusion policy averages (Chi et al., IJRR)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointSeries:
    """Success rates over the course of training; all checkpoints were evaluated on the same seeds."""

    label: str
    policy: str
    task: str
    episodes: int
    steps: Sequence[int]
    """Training steps, in ascending order."""
    successes: Sequence[int]
    rates: Sequence[float]
    lows: Sequence[float]
    highs: Sequence[float]
    """95 % intervals of the rates."""
    last: float
    mean_of_last: float
    averaged: int
    """Number of checkpoints in `mean_of_last`: AVERAGED_CHECKPOINTS, or all if there are fewer."""
    best: float
    best_step: int
    """Step of the best checkpoint; the earliest in case of a tie."""
    best_of: int
    """Number of checkpoints."""


def checkpoint_directory(step: int) -> str:
    """Name of a checkpoint's evaluation directory inside the directory of the series."""
    return f"step_{step:08d}"


def summarise_series(summaries: Sequence[EvaluationSummary]) -> CheckpointSeries:
    """Summarise the series. Raises UserError if it is empty, or if seeds or environments differ."""
    if not summaries:
        raise UserError("There is no evaluated checkpoint to summarise.")
    ordered = sorted(summaries, key=lambda summary: summary.training_step or 0)
    first = ordered[0]
    for summary in ordered:
        if summary.spec_hash != first.spec_hash or summary.seeds != first.seeds:
            raise UserError(
                f"The checkpoints at steps {first.training_step} and {summary.training_step} were evaluated on "
                "different seeds or environments; evaluate all of them with one command, without stop.rule."
            )
    rates = [summary.rate for summary in ordered]
    best = max(range(len(rates)), key=lambda index: (rates[index], -index))
    tail = rates[-AVERAGED_CHECKPOINTS:]
    return CheckpointSeries(
        label=first.label,
        policy=first.policy,
        task=first.task,
        episodes=first.episodes,
        steps=[summary.training_step or 0 for summary in ordered],
        successes=[summary.successes for summary in ordered],
        rates=rates,
        lows=[summary.low for summary in ordered],
        highs=[summary.high for summary in ordered],
        last=rates[-1],
        mean_of_last=sum(tail) / len(tail),
        averaged=len(tail),
        best=rates[best],
        best_step=ordered[best].training_step or 0,
        best_of=len(ordered),
    )


def read_series(directory: Path) -> CheckpointSeries:
    """Read the evaluations of checkpoints in `directory`. Raises UserError as `summarise_series` and
    `read_summary` do."""
    return summarise_series([read_summary(path.parent) for path in directory.glob(f"step_*/{SUMMARY}")])


def write_series(directory: Path) -> CheckpointSeries:
    """Write `checkpoints.json` beside the evaluations of checkpoints in `directory`."""
    series = read_series(directory)
    write_json(directory / SERIES, dataclasses.asdict(series))
    return series


def series_text(series: CheckpointSeries) -> str:
    """`last 45 %, mean of the last 10 43 %, best of 20 checkpoints 60 % (step 800; ...)`."""
    return (
        f"last {series.last:.0%}, mean of the last {series.averaged} {series.mean_of_last:.0%}, "
        f"best of {series.best_of} checkpoints {series.best:.0%} "
        f"(step {series.best_step:,}; selected on these same episodes, so biased upwards)"
    )
