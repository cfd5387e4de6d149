"""Many evaluations as one table: runs that differ only in the training seed form one row."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pixio_robot.errors import UserError
from pixio_robot.evaluation.results import EPISODES, SEQUENTIAL, SUMMARY, EvaluationSummary, read_outcomes, read_summary
from pixio_robot.evaluation.statistics import clustered_wilson_interval, wilson_interval
from pixio_robot.files import find_files, read_json
from pixio_robot.student_t import t_half_width

SEED_SETTINGS = frozenset({"loop.seed", "seed"})
"""Settings of `train` whose values are repetitions, not variants."""
NAMING_SETTINGS = frozenset({"label"})
INITIAL_POLICY = "initial_policy"
"""Prefix of the settings of the policy that another one started from."""
CONTENTS = "contents"
"""Key of what was at the paths that settings name, {setting: fingerprint}, in the training settings of a policy."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepRow:
    """One variant and its repetitions."""

    label: str
    policy: str
    task: str
    settings: Mapping[str, Any]
    """The settings that vary within the sweep, with this variant's values; None if it has no such setting."""
    distinguishing: Sequence[str]
    """The settings that distinguish it from other rows with the same task, label and policy."""
    runs: Sequence[EvaluationSummary]
    rates: Sequence[float]
    """Success rate of each trained policy over all its episodes."""
    rate: float
    """Mean of `rates`."""
    low: float
    high: float
    interval: str
    """Description of the interval `low` to `high`."""

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
        """Unique within its task: `Frozen Pixio (diffusion, policy.inference_steps=4)`."""
        values = [f"{_short_name(key)}={format_setting(self.settings[key])}" for key in self.distinguishing]
        return f"{self.label} ({', '.join([self.policy, *values])})"


def _short_name(key: str) -> str:
    """`encoder.size` of `encoder.encoder.size`; the whole of a setting that is not the policy's own."""
    return key if key.startswith(f"{INITIAL_POLICY}.") else ".".join(key.split(".")[-2:])


def format_setting(value: Any) -> str:
    """A setting as text; a dash if it is unset."""
    return "–" if value in (None, "") else str(value)


def student_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Student's t interval for the mean of at least two rates, clipped to [0, 1].

    It covers what the interval over episodes leaves out: the variation between training seeds.
    """
    mean, margin = sum(values) / len(values), t_half_width(values, confidence)
    return max(0.0, mean - margin), min(1.0, mean + margin)


def collect_sweep(
    directory: Path,
    settings_of: Callable[[Path], Mapping[str, Any]],
    leave_out: Collection[str] = (),
    stale: Collection[Path] = (),
) -> list[SweepRow]:
    """Every finished evaluation below `directory`, grouped, best first.

    `settings_of(evaluation directory)` returns the training settings of the policy evaluated there, empty if unknown;
    with `CONTENTS` among them, policies are not repetitions if these differ, such as those of a store that has grown.
    `leave_out`: names of directories to skip. `stale`: evaluations to skip.
    Raises UserError if the directory does not exist or contains no finished evaluation.
    """
    if not directory.is_dir():
        raise UserError(f"There is no directory {directory}; set sweep= to the one that contains the evaluations.")
    summaries_below = [
        path for path in find_files(directory, SUMMARY) if not {*leave_out} & {*path.relative_to(directory).parts}
    ]
    paths = sorted(path.parent for path in summaries_below if path.parent not in stale and _is_evaluation(path))
    if not paths:
        raise UserError(f"{directory} holds no finished evaluation (`pixio-robot evaluate ... out={directory}/...`).")
    # Checkpoints of one training run are not repetitions; `report run=` shows them as a series.
    evaluated = [(path, summary) for path in paths if (summary := read_summary(path)).training_step is None]
    if not evaluated:
        raise UserError(
            f"{directory} holds only evaluations of intermediate checkpoints; see those with `pixio-robot report run=`."
        )
    evaluated = _drop_repeated_episodes(evaluated)
    summaries = [summary for _, summary in evaluated]
    trained = [dict(settings_of(path)) for path, _ in evaluated]
    contents = [each.pop(CONTENTS, {}) for each in trained]
    settings = [_distinguishing_settings(summary, each) for summary, each in zip(summaries, trained, strict=True)]
    # Another controller, or cameras of another size.
    settings = _tell_apart(summaries, settings, "environment", [summary.spec_hash for summary in summaries])
    for name in sorted({name for each in contents for name in each}):
        settings = _tell_apart(summaries, settings, f"contents of {name}", [each.get(name) for each in contents])
    varied = _varying_settings(settings)
    rows = []
    for group in _group_repetitions(summaries, settings, varied):
        first = summaries[group[0]]
        same_label = [settings[i] for i, each in enumerate(summaries) if _display_key(each) == _display_key(first)]
        values = {key: settings[group[0]].get(key) for key in varied}
        rows.append(_make_row([evaluated[i] for i in group], values, _varying_settings(same_label)))
    return sorted(rows, key=lambda row: (row.task, -row.rate, row.label))


def find_unfinished(directory: Path, leave_out: Collection[str] = ()) -> list[Path]:
    """Evaluations that were started but have no summary, which `collect_sweep` skips."""
    begun = (path.parent for path in find_files(directory, EPISODES))
    return sorted(
        path
        for path in begun
        if not (path / SUMMARY).is_file() and not {*leave_out} & {*path.relative_to(directory).parts}
    )


def _distinguishing_settings(summary: EvaluationSummary, training: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that may distinguish a run: how its policy was trained, how it acts, and in which environment."""
    acting = {"acting": summary.acting, "sight": summary.sight} if training else {}
    where = {"scene": summary.scene, "robot": summary.robot, "render_quality": summary.render_quality}
    return {**training, **acting, **where}


def _tell_apart(
    summaries: Sequence[EvaluationSummary], settings: list[dict[str, Any]], name: str, values: Sequence[Any]
) -> list[dict[str, Any]]:
    """The settings, with these values (None: unknown) among them if nothing else would distinguish some rows."""
    varied = _varying_settings(settings)
    rows: dict[tuple, set[str]] = {}
    for summary, each, value in zip(summaries, settings, values, strict=True):
        if value is not None:
            row = (*_display_key(summary), *(repr(each.get(key)) for key in varied))
            rows.setdefault(row, set()).add(repr(value))
    if all(len(distinct) == 1 for distinct in rows.values()):
        return settings
    return [{**each, name: value} for each, value in zip(settings, values, strict=True)]


def _group_repetitions(
    summaries: Sequence[EvaluationSummary], settings: Sequence[Mapping[str, Any]], varied: Sequence[str]
) -> list[list[int]]:
    """The numbers of the evaluations of each row: those that differ in nothing but seeds."""
    groups: dict[tuple, list[int]] = {}
    for index, (summary, values) in enumerate(zip(summaries, settings, strict=True)):
        who = (summary.label, summary.policy, summary.encoder, summary.adaptation, summary.acting, summary.sight)
        where = (summary.task, summary.spec_hash, summary.scene)
        groups.setdefault((*who, *where, *(repr(values.get(key)) for key in varied)), []).append(index)
    return list(groups.values())


def _display_key(summary: EvaluationSummary) -> tuple[str, str, str]:
    return summary.task, summary.label, summary.policy


def _drop_repeated_episodes(evaluated: list[tuple[Path, EvaluationSummary]]) -> list[tuple[Path, EvaluationSummary]]:
    """Drop evaluations that share episodes with a longer one of the same policy: counting the same episodes twice would
    make the intervals too narrow."""
    kept: list[tuple[Path, EvaluationSummary]] = []
    for path, summary in sorted(evaluated, key=lambda each: -each[1].episodes):
        again = any(_same_actor(summary, other) and not set(summary.seeds).isdisjoint(other.seeds) for _, other in kept)
        if not again:
            kept.append((path, summary))
    return [each for each in evaluated if each in kept]


def _same_actor(first: EvaluationSummary, second: EvaluationSummary) -> bool:
    """Whether both evaluate the same weights (or random actions), acting the same way in the same scene."""
    identities = [
        (run.fingerprint, run.policy, run.acting, run.sight, run.spec_hash, run.scene) for run in (first, second)
    ]
    return identities[0] == identities[1] and bool(first.fingerprint or first.policy == "random")


def _is_evaluation(path: Path) -> bool:
    value = read_json(path)
    return isinstance(value, dict) and "successes" in value and "seeds" in value


def _varying_settings(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Settings, other than seeds, whose values differ among the runs that have them. A setting that only some kinds of
    policy have counts too: it distinguishes the runs that have it."""
    values: dict[str, set[str]] = {}
    for each in settings:
        for key, value in each.items():
            values.setdefault(key, set()).add(repr(value))
    return sorted(
        key for key, distinct in values.items() if len(distinct) > 1 and key not in SEED_SETTINGS | NAMING_SETTINGS
    )


def _make_row(
    evaluated: list[tuple[Path, EvaluationSummary]], settings: dict[str, Any], distinguishing: list[str]
) -> SweepRow:
    runs = [run for _, run in evaluated]
    first = runs[0]
    trained = _group_by_weights(runs)
    rates = [sum(run.successes for run in of_one) / sum(run.episodes for run in of_one) for of_one in trained]
    successes, episodes = sum(run.successes for run in runs), sum(run.episodes for run in runs)
    once = "" if first.policy == "random" else ", one training seed"
    if len(trained) > 1:
        # A few runs with few episodes may agree by chance, so use the wider interval.
        outcomes = [{end.seed: end.success for end in read_outcomes(path, run.seeds)} for path, run in evaluated]
        student, pooled = student_interval(rates), clustered_wilson_interval(outcomes)
        low, high = min(student[0], pooled[0]), max(student[1], pooled[1])
        seeds = len({run.training_seed for run in runs})
        over = f"{len(rates)} training seeds"
        if seeds != len(rates):
            over = f"{len(rates)} policies from {seeds} training seed{'s' * (seeds > 1)}"
        interval = f"the wider of Student's t over {over} and Wilson over all episodes, clustered by seed"
    elif len(runs) > 1:
        low, high = wilson_interval(successes, episodes)
        interval = f"Wilson over {episodes} episodes in {len(runs)} runs{once}"
    else:
        low, high = first.low, first.high
        interval = f"{first.interval} over {first.episodes} episodes{once}"
    if len(runs) > 1 and any(run.interval == SEQUENTIAL for run in runs):
        interval += "; some runs may have stopped early, which it does not account for"
    return SweepRow(
        label=first.label,
        policy=first.policy,
        task=first.task,
        settings=settings,
        distinguishing=distinguishing,
        runs=runs,
        rates=rates,
        rate=sum(rates) / len(rates),
        low=low,
        high=high,
        interval=interval,
    )


def _group_by_weights(runs: Sequence[EvaluationSummary]) -> list[list[EvaluationSummary]]:
    """Group the runs by trained policy: several evaluations of one policy say nothing about the variation between
    training seeds, so they are not repetitions. Random actions count as one policy; a run without a fingerprint counts
    by itself."""
    groups: dict[str, list[EvaluationSummary]] = {}
    for index, run in enumerate(runs):
        weights = run.fingerprint or ("random actions" if run.policy == "random" else f"run {index}")
        groups.setdefault(weights, []).append(run)
    return list(groups.values())
