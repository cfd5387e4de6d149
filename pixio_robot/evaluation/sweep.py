"""Many evaluations as one table: runs that differ in nothing but the training seed make one row."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pixio_robot.errors import UserError
from pixio_robot.evaluation.results import EPISODES, SEQUENTIAL, SUMMARY, EvaluationSummary, read_summary
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
    """The settings that differ within the sweep, with this variant's values; None where it has no such setting."""
    telling: Sequence[str]
    """Those of the settings that tell it from the rows of the same task, label and policy."""
    runs: Sequence[EvaluationSummary]
    rates: Sequence[float]
    """Of each trained policy, over all episodes that it played."""
    rate: float
    """Mean of `rates`."""
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

    @property
    def name(self) -> str:
        """`Frozen Pixio (diffusion, policy.inference_steps=4)`: what tells it from all other rows of its task."""
        values = [f"{'.'.join(key.split('.')[-2:])}={shown(self.settings[key])}" for key in self.telling]
        return f"{self.label} ({', '.join([self.policy, *values])})"


def shown(value: Any) -> str:
    """A setting for people: a dash where there is none."""
    return "–" if value in (None, "") else str(value)


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

    `settings_of(evaluation directory)` gives the training settings of the policy that was evaluated there, nothing
    where they are not known. `leave_out`: names of folders that are not looked into.
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
    settings = [_of_run(summary, settings_of(path)) for path, summary in found]
    varied = _varied(settings)
    environments: dict[tuple, set[str]] = {}
    for summary, values in zip(summaries, settings, strict=True):
        what = (*_spoken_name(summary), *(repr(values.get(key)) for key in varied))
        environments.setdefault(what, set()).add(summary.spec_hash)
    if any(len(hashes) > 1 for hashes in environments.values()):
        # Nothing else tells these rows apart: another controller, cameras of another size.
        settings = [
            {**values, "environment": summary.spec_hash} for summary, values in zip(summaries, settings, strict=True)
        ]
        varied = _varied(settings)
    groups: dict[tuple, list[int]] = {}
    for index, (summary, values) in enumerate(zip(summaries, settings, strict=True)):
        who = (summary.label, summary.policy, summary.encoder, summary.adaptation, summary.acting, summary.sight)
        where = (summary.task, summary.spec_hash, summary.scene)
        groups.setdefault((*who, *where, *(repr(values.get(key)) for key in varied)), []).append(index)
    rows = []
    for group in groups.values():
        first = summaries[group[0]]
        alike = [settings[i] for i, each in enumerate(summaries) if _spoken_name(each) == _spoken_name(first)]
        values = {key: settings[group[0]].get(key) for key in varied}
        rows.append(_row([summaries[i] for i in group], values, _varied(alike)))
    return sorted(rows, key=lambda row: (row.task, -row.rate, row.label))


def unfinished_below(directory: Path, leave_out: Collection[str] = ()) -> list[Path]:
    """Evaluations that have begun and have no summary, which `collect_sweep` passes over."""
    begun = (path.parent for path in directory.rglob(EPISODES))
    return sorted(
        path
        for path in begun
        if not (path / SUMMARY).is_file() and not {*leave_out} & {*path.relative_to(directory).parts}
    )


def _of_run(summary: EvaluationSummary, training: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that may tell a run from others: how its policy was trained, how it acts, and where."""
    acting = {"acting": summary.acting, "sight": summary.sight} if training else {}
    where = {"scene": summary.scene, "robot": summary.robot, "render_quality": summary.render_quality}
    return {**training, **acting, **where}


def _spoken_name(summary: EvaluationSummary) -> tuple[str, str, str]:
    return summary.task, summary.label, summary.policy


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
    identities = [
        (run.fingerprint, run.policy, run.acting, run.sight, run.spec_hash, run.scene) for run in (first, second)
    ]
    return identities[0] == identities[1] and bool(first.fingerprint or first.policy == "random")


def _is_evaluation(path: Path) -> bool:
    value = read_json(path)
    return isinstance(value, dict) and "successes" in value and "seeds" in value


def _varied(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Settings that not all runs which have them have alike, without the seeds. One that some kinds of policy lack
    counts too: it tells those apart that have it."""
    values: dict[str, set[str]] = {}
    for each in settings:
        for key, value in each.items():
            values.setdefault(key, set()).add(repr(value))
    return sorted(
        key
        for key, found in values.items()
        if len(found) > 1 and key not in SEED_SETTINGS | NAMES_ONLY and not key.startswith("input ")
    )


def _row(runs: list[EvaluationSummary], settings: dict[str, Any], telling: list[str]) -> SweepRow:
    first = runs[0]
    trained = _by_weights(runs)
    rates = [sum(run.successes for run in of_one) / sum(run.episodes for run in of_one) for of_one in trained]
    successes, episodes = sum(run.successes for run in runs), sum(run.episodes for run in runs)
    once = "" if first.policy == "random" else ", one training seed"
    if len(trained) > 1:
        # Runs that happen to agree say little of the rate where their episodes are few, so the wider one counts.
        student, pooled = student_interval(rates), wilson_interval(successes, episodes)
        low, high = min(student[0], pooled[0]), max(student[1], pooled[1])
        seeds = len({run.training_seed for run in runs})
        over = f"{len(rates)} training seeds"
        if seeds != len(rates):
            over = f"{len(rates)} policies of {seeds} training seed{'s' * (seeds > 1)}"
        interval = f"the wider of Student's t over {over} and Wilson over all episodes"
    elif len(runs) > 1:
        low, high = wilson_interval(successes, episodes)
        interval = f"Wilson over {episodes} episodes in {len(runs)} runs{once}"
    else:
        low, high = first.low, first.high
        interval = f"{first.interval} over {first.episodes} episodes{once}"
    if len(runs) > 1 and any(run.interval == SEQUENTIAL for run in runs):
        interval += "; runs that may stop early are among them, which it does not allow for"
    return SweepRow(
        label=first.label,
        policy=first.policy,
        task=first.task,
        settings=settings,
        telling=telling,
        runs=runs,
        rates=rates,
        rate=sum(rates) / len(rates),
        low=low,
        high=high,
        interval=interval,
    )


def _by_weights(runs: Sequence[EvaluationSummary]) -> list[list[EvaluationSummary]]:
    """The runs of each trained policy together: its evaluations on several lists of seeds say nothing of how a rate
    moves with training, so they are no repetitions. Random actions are one policy; where it is not known whose weights
    a run is of, it counts by itself."""
    found: dict[str, list[EvaluationSummary]] = {}
    for index, run in enumerate(runs):
        known = run.fingerprint or ("random actions" if run.policy == "random" else f"run {index}")
        found.setdefault(known, []).append(run)
    return list(found.values())
