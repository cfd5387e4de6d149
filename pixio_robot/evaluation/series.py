"""The checkpoints of one training, each evaluated: the last, the mean of the last ten, and the best, named as such.

The best of k checkpoints, chosen by the very episodes it is reported on, is what several published tables show; it
flatters, and the more so the more checkpoints there are. So it never stands alone here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from pixio_robot.errors import UserError
from pixio_robot.evaluation.results import SUMMARY, EvaluationSummary, read_summary
from pixio_robot.files import write_json

SERIES = "checkpoints.json"
LAST = 10
"""As diffusion policy averages (Chi et al., IJRR)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointSeries:
    """Success rates over training; all checkpoints played the same seeds."""

    label: str
    policy: str
    task: str
    episodes: int
    steps: Sequence[int]
    """Updates, rising."""
    successes: Sequence[int]
    rates: Sequence[float]
    lows: Sequence[float]
    highs: Sequence[float]
    """95 % intervals of the rates."""
    last: float
    mean_of_last: float
    averaged: int
    """How many checkpoints `mean_of_last` is over: LAST, or all where there are fewer."""
    best: float
    best_step: int
    """The earliest of the best."""

    @property
    def best_of(self) -> int:
        return len(self.steps)


def checkpoint_directory(step: int) -> str:
    """The name of one checkpoint's evaluation inside the series's directory."""
    return f"step_{step:08d}"


def series_of(summaries: Sequence[EvaluationSummary]) -> CheckpointSeries:
    """Raises UserError where there are none, or they did not play the same seeds in one environment."""
    if not summaries:
        raise UserError("There is no evaluated checkpoint to summarise.")
    ordered = sorted(summaries, key=lambda summary: summary.training_step or 0)
    first = ordered[0]
    for summary in ordered:
        if summary.spec_hash != first.spec_hash or summary.seeds != first.seeds:
            raise UserError(
                f"The checkpoints at steps {first.training_step} and {summary.training_step} were evaluated on other "
                "seeds or environments; evaluate all of them by one command, without stop.rule."
            )
    rates = [summary.rate for summary in ordered]
    best = max(range(len(rates)), key=lambda index: (rates[index], -index))
    tail = rates[-LAST:]
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
    )


def read_series(directory: Path) -> CheckpointSeries:
    """From the evaluations of checkpoints in `directory`. Raises UserError as `series_of` and `read_summary` do."""
    return series_of([read_summary(path.parent) for path in directory.glob(f"step_*/{SUMMARY}")])


def write_series(directory: Path) -> CheckpointSeries:
    """Write `checkpoints.json` beside the evaluations of checkpoints in `directory`."""
    series = read_series(directory)
    write_json(directory / SERIES, dataclasses.asdict(series) | {"best_of": series.best_of})
    return series


def series_text(series: CheckpointSeries) -> str:
    """`last 45 %, mean of the last 10 43 %, best of 20 checkpoints 60 % (step 800; chosen on these episodes)`."""
    return (
        f"last {series.last:.0%}, mean of the last {series.averaged} {series.mean_of_last:.0%}, "
        f"best of {series.best_of} checkpoints {series.best:.0%} "
        f"(step {series.best_step:,}; chosen by these same episodes, which flatters it)"
    )
