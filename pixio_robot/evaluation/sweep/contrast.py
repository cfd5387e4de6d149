"""Difference between two rows of a sweep: do two training methods differ, rather than just two trained policies?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from pixio_robot.errors import UserError, unknown_name
from pixio_robot.evaluation.results import same_environment
from pixio_robot.evaluation.sweep.collect import SweepRow
from pixio_robot.student_t import standard_error, t_quantile


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contrast:
    """mean rate(row) - mean rate(reference), with its 95 % interval and two-sided p-value."""

    difference: float
    low: float
    high: float
    p_value: float


def find_rows(rows: Sequence[SweepRow], name: str) -> list[SweepRow]:
    """The rows with this name, or else with this label; at most one per task.

    Raises UserError listing the names if there is none, or if several rows of one task match.
    """
    matching = [row for row in rows if row.name == name] or [row for row in rows if row.label == name]
    if not matching:
        raise unknown_name("row of the sweep", name, sorted({row.name for row in rows}))
    for row in matching:
        names = sorted(other.name for other in matching if other.task == row.task)
        if len(names) > 1:
            raise UserError(f"{name!r} matches several rows of {row.task}; use one of: {'; '.join(names)}.")
    return matching


def welch_contrast(row: SweepRow, reference: SweepRow, confidence: float = 0.95) -> Contrast | None:
    """Welch's t-test on the rates of the trained policies, which are the repetitions (Welch 1947, Biometrika 34:28).

    None if one side has only one policy, or if the two were evaluated in different environments.

    The rates of a few seeds may agree by chance. Each side's squared standard error is therefore at least that of its
    episodes, p (1 - p) / n with p = (successes + 1) / (n + 2), which is positive even at 0 or n successes.
    """
    from scipy import stats

    sides = (row, reference)
    if min(len(side.rates) for side in sides) < 2 or not same_environment(row.runs[0], reference.runs[0]):
        return None
    squared = [max(standard_error(side.rates) ** 2, _episode_variance(side.successes, side.episodes)) for side in sides]
    error = math.sqrt(sum(squared))
    freedom = sum(squared) ** 2 / sum(
        each**2 / (len(side.rates) - 1) for each, side in zip(squared, sides, strict=True)
    )
    difference = row.rate - reference.rate
    margin = t_quantile(freedom, confidence) * error
    return Contrast(
        difference=difference,
        low=max(-1.0, difference - margin),
        high=min(1.0, difference + margin),
        p_value=float(2 * stats.t.sf(abs(difference) / error, freedom)),
    )


def _episode_variance(successes: int, episodes: int) -> float:
    """Squared standard error of a rate over its episodes."""
    rate = (successes + 1) / (episodes + 2)
    return rate * (1 - rate) / episodes
