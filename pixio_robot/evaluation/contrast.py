"""The difference of two rows of a sweep: do two ways of training differ, and not only two trained policies?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from pixio_robot.errors import UserError, unknown_name
from pixio_robot.evaluation.results import same_environment
from pixio_robot.evaluation.sweep import SweepRow


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contrast:
    """mean rate(row) - mean rate(reference), with its 95 % interval, and a two-sided p-value."""

    difference: float
    low: float
    high: float
    p_value: float


def find_row(rows: Sequence[SweepRow], name: str) -> list[SweepRow]:
    """The row of that name, or of that label where no other has it; one in every task that has it.

    Raises UserError listing the names where there is none, or several of a task.
    """
    found = [row for row in rows if row.name == name] or [row for row in rows if row.label == name]
    if not found:
        raise unknown_name("row of the sweep", name, sorted({row.name for row in rows}))
    for row in found:
        alike = sorted(other.name for other in found if other.task == row.task)
        if len(alike) > 1:
            raise UserError(f"{name!r} may mean several rows of {row.task}; give one of: {'; '.join(alike)}.")
    return found


def contrast(row: SweepRow, reference: SweepRow, confidence: float = 0.95) -> Contrast | None:
    """By Welch's t over the rates of the trained policies (Welch 1947, Biometrika 34:28), which are the repetitions;
    None where one side has a single one, or the two were played in different environments.

    Rates of few seeds may agree by luck. So no side's squared error counts for less than what its episodes alone would
    give, p (1 - p) / n with p = (successes + 1) / (n + 2), so that it is not nothing at 0 or n successes.
    """
    from scipy import stats

    sides = (row, reference)
    if min(len(side.rates) for side in sides) < 2 or not same_environment(row.runs[0], reference.runs[0]):
        return None
    squared = [max(_between(side.rates), _within(side.successes, side.episodes)) for side in sides]
    error = math.sqrt(sum(squared))
    freedom = sum(squared) ** 2 / sum(
        each**2 / (len(side.rates) - 1) for each, side in zip(squared, sides, strict=True)
    )
    difference = row.rate - reference.rate
    margin = float(stats.t.ppf(0.5 + confidence / 2, freedom)) * error
    return Contrast(
        difference=difference,
        low=max(-1.0, difference - margin),
        high=min(1.0, difference + margin),
        p_value=float(2 * stats.t.sf(abs(difference) / error, freedom)),
    )


def _between(rates: Sequence[float]) -> float:
    """Squared standard error of the mean."""
    mean = sum(rates) / len(rates)
    return sum((rate - mean) ** 2 for rate in rates) / (len(rates) - 1) / len(rates)


def _within(successes: int, episodes: int) -> float:
    rate = (successes + 1) / (episodes + 2)
    return rate * (1 - rate) / episodes
