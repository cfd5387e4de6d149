"""Many evaluations as one table: runs that differ in nothing but the training seed make one row."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pixio_robot.errors import UserError
from pixio_robot.evaluation.results import SUMMARY, EvaluationSummary, read_summary
from pixio_robot.evaluation.statistics import wilson_interval
from pixio_robot.files import read_json

SEED_SETTINGS = frozenset({"loop.seed", "seed"})
"""Settings of `train` that are repetitions, not variants."""
NAMES_ONLY = frozenset({"label", "initial_policy"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepRow:
    """One variant with its repetitions."""

    label: str
    policy: str
    task: str
    settings: Mapping[str, Any]
    """The settings that differ within the sweep, with this variant's values."""
    runs: Sequence[EvaluationSummary]
    rate: float
    """Mean over the runs."""
    low: float
    high: float
    interval: str
    """What `low` and `high` allow for."""

    @property
    def successes(self) -> int:
        return sum(run.successes for run in self.runs)

    @property
    def episodes(self) -> int:
        return sum(run.episodes for run in self.runs)

    @property
    def training_seeds(self) -> list[int | None]:
        return [run.training_seed for run in self.runs]


def student_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the mean of at least two rates, by Student's t, cut to [0, 1].

    It covers what the episodes' interval leaves out: how a rate moves when training starts from another seed.
    """
    from scipy import stats

    n = len(values)
    mean = sum(values) / n
    error = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n)
    margin = float(stats.t.ppf(0.5 + confidence / 2, n - 1)) * error
    return max(0.0, mean - margin), min(1.0, mean + margin)


def collect_sweep(
    directory: Path, settings_of: Callable[[Path], Mapping[str, Any]], leave_out: Collection[str] = ()
) -> list[SweepRow]:
    """Every finished evaluation below `directory`, grouped, best first.

    `settings_of(evaluation directory)` gives the training settings of the policy that was evaluated there. `leave_out`:
    names of folders that are not looked into.
    Raises UserError when there is no directory, or no finished evaluation in it.
    """
    if not directory.is_dir():
        raise UserError(f"There is no directory {directory}; give sweep=DIR, where the evaluations lie.")
    summaries_below = [
        path for path in directory.rglob(SUMMARY) if not {*leave_out} & {*path.relative_to(directory).parts}
    ]
    paths = sorted(path.parent for path in summaries_below if _is_evaluation(path))
    if not paths:
        raise UserError(f"{directory} holds no finished evaluation (`pixio-robot evaluate ... out={directory}/...`).")
    # The checkpoints of one training are no repetitions of it; `report run=` shows them as a series.
    found = [(path, summary) for path in paths if (summary := read_summary(path)).training_step is None]
    if not found:
        raise UserError(f"{directory} holds evaluations of checkpoints only; `pixio-robot report run=` shows those.")
    found = _without_repetitions(found)
    summaries = [summary for _, summary in found]
    settings = [
        {**values, "acting": summary.acting} if (values := settings_of(path)) else values for path, summary in found
    ]
    varied = _varied([each for each in settings if each])
    groups: dict[tuple, list[int]] = {}
    for index, (summary, values) in enumerate(zip(summaries, settings, strict=True)):
        who = (summary.label, summary.policy, summary.encoder, summary.adaptation, summary.acting)
        where = (summary.task, summary.spec_hash, summary.scene)
        groups.setdefault((*who, *where, *(repr(values.get(key)) for key in varied)), []).append(index)
    rows = [
        _row([summaries[i] for i in group], {key: settings[group[0]].get(key) for key in varied})
        for group in groups.values()
    ]
    return sorted(rows, key=lambda row: (row.task, -row.rate, row.label))


def _without_repetitions(found: list[tuple[Path, EvaluationSummary]]) -> list[tuple[Path, EvaluationSummary]]:
    """Without evaluations whose episodes another one of the same policy has played too, the longest kept: the same
    episodes, counted again, would make intervals too narrow."""
    kept: list[tuple[Path, EvaluationSummary]] = []
    for path, summary in sorted(found, key=lambda each: -each[1].episodes):
        again = any(_same_actor(summary, other) and not set(summary.seeds).isdisjoint(other.seeds) for _, other in kept)
        if not again:
            kept.append((path, summary))
    return [each for each in found if each in kept]


def _same_actor(first: EvaluationSummary, second: EvaluationSummary) -> bool:
    """Whether both are of the same weights, or of random actions, acting the same in the same scene."""
    identities = [(run.fingerprint, run.policy, run.acting, run.spec_hash, run.scene) for run in (first, second)]
    return identities[0] == identities[1] and bool(first.fingerprint or first.policy == "random")


def _is_evaluation(path: Path) -> bool:
    value = read_json(path)
    return isinstance(value, dict) and "successes" in value and "seeds" in value


def _varied(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Settings that all runs have and not all have alike, without the seeds."""
    shared = set.intersection(*(set(each) for each in settings)) if settings else set()
    return sorted(
        key
        for key in shared - SEED_SETTINGS - NAMES_ONLY
        if not key.startswith("input ") and len({repr(each[key]) for each in settings}) > 1
    )


def _row(runs: list[EvaluationSummary], settings: dict[str, Any]) -> SweepRow:
    first = runs[0]
    rates = [run.rate for run in runs]
    if len(runs) > 1:
        # Runs that happen to agree say little of the rate where their episodes are few, so the wider one counts.
        student = student_interval(rates)
        pooled = wilson_interval(sum(run.successes for run in runs), sum(run.episodes for run in runs))
        low, high = min(student[0], pooled[0]), max(student[1], pooled[1])
        seeds = len({run.training_seed for run in runs})
        over = f"{len(runs)} training seeds" if seeds == len(runs) else f"{len(runs)} runs of {seeds} training seeds"
        interval = f"the wider of Student's t over {over} and Wilson over all episodes"
    else:
        low, high = first.low, first.high
        interval = f"{first.interval} over {first.episodes} episodes, one training seed"
    return SweepRow(
        label=first.label,
        policy=first.policy,
        task=first.task,
        settings=settings,
        runs=runs,
        rate=sum(rates) / len(rates),
        low=low,
        high=high,
        interval=interval,
    )
