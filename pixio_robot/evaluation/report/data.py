"""Read a run directory into `ReportInputs`; any part may be missing.

frames/manifest.json                frame counts of the ingest
demos                               demonstration store
pretrain/metrics.jsonl              {"step", "loss", "lr", ..., "seconds"} per line
pretrain/panels/step_*.png          rows of masked / predicted / original
policies/<name>/metrics.jsonl       as above
evaluations/<name>/                 results directory (`results.py`), or of a series (`checkpoint_series.py`)
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pixio_robot.data.demos.store import DemoStore
from pixio_robot.errors import UserError
from pixio_robot.evaluation.checkpoint_series import SERIES, CheckpointSeries, read_series
from pixio_robot.evaluation.results import EPISODES, SUMMARY, EvaluationSummary, read_episodes, read_outcomes
from pixio_robot.evaluation.results import read_summary as read_evaluation_summary
from pixio_robot.files import read_json
from pixio_robot.types import EpisodeResult

EVALUATIONS = "evaluations"
HELD_OUT = {"validation_loss": "loss", "validation_action_error": "action error"}
"""Measurements on held-out data in metrics.jsonl, and what the report calls them."""
ACTION_ERRORS = "validation_action_error/"
"""Prefix of the error of one dimension of the actions."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One command of the pipeline."""

    stage: str
    command: str
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve:
    """Loss over the steps of a training run. Non-finite values are stored as NaN."""

    steps: Sequence[int]
    losses: Sequence[float]
    seconds: float | None
    held_out: Mapping[str, Mapping[int, float]] = dataclasses.field(default_factory=dict)
    """What was measured on held-out data, by `HELD_OUT` and step; only finite values."""
    action_errors: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """The last error of every dimension of the actions, by its name with unit."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One finished evaluation, with its episodes in seed order."""

    summary: EvaluationSummary
    episodes: Sequence[EpisodeResult]
    directory: Path
    title: str
    """The label, plus whatever is needed to make it unique: `Frozen Pixio (diffusion)`."""

    @property
    def outcomes(self) -> dict[int, bool]:
        return {episode.seed: episode.success for episode in self.episodes}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportInputs:
    """All inputs of the report. None or an empty collection: not run."""

    run_dir: Path
    stages: Sequence[Stage] = ()
    environment: Mapping[str, Any] | None = None
    frames: Mapping[str, Any] | None = None
    demos: Mapping[str, Any] | None = None
    pretraining: Curve | None = None
    panels: Sequence[Path] = ()
    policies: Mapping[str, Curve] = dataclasses.field(default_factory=dict)
    evaluations: Sequence[Evaluation] = ()
    series: Mapping[str, CheckpointSeries] = dataclasses.field(default_factory=dict)
    """Evaluations of the checkpoints of a training run, by directory name."""
    compared: Sequence[Path] = ()
    """The run directories being compared; empty for a report on one run."""
    unfinished: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Number of episodes so far of each evaluation without a summary."""
    stale: Sequence[str] = ()
    """Evaluations left out because their policy was trained anew since."""


def collect_inputs(
    run_dir: Path,
    stale: Collection[Path] = (),
    stages: Sequence[Stage] = (),
    environment: Mapping[str, Any] | None = None,
) -> ReportInputs:
    """Read a run directory, but not the evaluations that are `stale`. `stages`: the commands that made it.
    `environment`: what to say about this machine.

    Raises UserError if it does not exist or contains none of the known parts, and for anything malformed, naming the
    file and line. An incomplete last line (of a killed run) is ignored.
    """
    if not run_dir.is_dir():
        raise UserError(f"There is no run directory {run_dir}.")
    evaluations, unfinished = _read_evaluations([run_dir], stale)
    curves = {path.parent.name: _read_curve(path) for path in sorted(run_dir.glob("policies/*/metrics.jsonl"))}
    inputs = ReportInputs(
        run_dir=run_dir,
        stages=stages,
        environment=environment,
        frames=read_json(manifest) if (manifest := run_dir / "frames" / "manifest.json").is_file() else None,
        demos=_describe_demonstrations(run_dir / "demos"),
        pretraining=_read_curve(run_dir / "pretrain" / "metrics.jsonl"),
        panels=sorted(run_dir.glob("pretrain/panels/step_*.png"), key=_step_of),
        policies={name: curve for name, curve in curves.items() if curve is not None},
        evaluations=evaluations,
        series=_read_checkpoint_series([run_dir], stale),
        unfinished=unfinished,
        stale=_evaluation_names([run_dir], stale),
    )
    parts = {field.name for field in dataclasses.fields(inputs)} - {"run_dir", "environment"}
    if not any(getattr(inputs, part) for part in parts):
        raise UserError(
            f"{run_dir} holds nothing to report: none of pretrain/metrics.jsonl, policies/*/metrics.jsonl, "
            "evaluations/*, frames/manifest.json, demos."
        )
    return inputs


def _describe_demonstrations(path: Path) -> dict[str, Any] | None:
    """What the store at `path` contains; None if there is none."""
    if not path.is_dir():
        return None
    store = DemoStore.open(path)
    spec = store.spec
    cameras = [f"{name} {camera.height}x{camera.width}" for name, camera in spec.cameras.items()]
    return {
        "task": spec.task,
        "robot": spec.robot,
        "episodes": len(store),
        "successes": sum(store.successes),
        "steps": int(store.lengths.sum()),
        "steps per second": spec.control_hz,
        "cameras": cameras or "none",
        "state": f"{spec.state_dim} numbers",
        "actions": f"{spec.action_dim} numbers",
        "source": spec.source,
    }


def collect_comparison(run_dirs: Sequence[Path], stale: Collection[Path] = ()) -> ReportInputs:
    """Read the evaluations of several run directories for comparison, but not those that are `stale`.

    Raises UserError if a directory does not exist, is given twice, or contains no evaluation.
    """
    for run_dir in run_dirs:
        if not run_dir.is_dir():
            raise UserError(f"There is no run directory {run_dir}.")
        if not any((run_dir / EVALUATIONS).rglob(EPISODES)):
            raise UserError(f"{run_dir} holds no evaluation to compare ({run_dir / EVALUATIONS}/*).")
    if len({run_dir.resolve() for run_dir in run_dirs}) < len(run_dirs):
        raise UserError("compare= contains the same run directory twice.")
    evaluations, unfinished = _read_evaluations(run_dirs, stale)
    return ReportInputs(
        run_dir=run_dirs[0],
        compared=run_dirs,
        evaluations=evaluations,
        series=_read_checkpoint_series(run_dirs, stale),
        unfinished=unfinished,
        stale=_evaluation_names(run_dirs, stale),
    )


def _read_evaluations(run_dirs: Sequence[Path], stale: Collection[Path]) -> tuple[list[Evaluation], dict[str, int]]:
    """All finished evaluations, best first, and the number of episodes of each unfinished one."""
    finished: list[Evaluation] = []
    unfinished: dict[str, int] = {}
    for run_dir, path in _results_directories(run_dirs):
        if (path / SERIES).exists() or path in stale:
            continue
        if (path / SUMMARY).exists():
            summary = read_evaluation_summary(path)
            episodes = read_outcomes(path, summary.seeds)
            finished.append(Evaluation(summary=summary, episodes=episodes, directory=path, title=summary.label))
        else:
            played = [each for each in (path, *path.glob("step_*")) if (each / EPISODES).exists()]
            unfinished[_evaluation_name(run_dirs, run_dir, path)] = sum(len(read_episodes(each)) for each in played)
    finished.sort(key=lambda evaluation: (-evaluation.summary.rate, evaluation.summary.name))
    details: list[Callable[[Evaluation], str]] = [
        lambda evaluation: evaluation.summary.policy,
        lambda evaluation: evaluation.summary.acting,
        lambda evaluation: evaluation.summary.sight,
        lambda evaluation: evaluation.directory.name,
    ]
    if len(run_dirs) > 1:
        details.insert(0, lambda evaluation: run_name(run_dirs, evaluation.directory.parent.parent))
    return _make_titles_unique(finished, details), unfinished


def _make_titles_unique(
    evaluations: list[Evaluation], details: Sequence[Callable[[Evaluation], str]]
) -> list[Evaluation]:
    """Make titles unique: add each detail to those titles that are shared and for which the detail differs."""
    titles: list[tuple[str, ...]] = [(evaluation.title,) for evaluation in evaluations]
    for detail in details:
        values: dict[tuple[str, ...], set[str]] = {}
        for title, evaluation in zip(titles, evaluations, strict=True):
            values.setdefault(title, set()).add(detail(evaluation))
        titles = [
            (*title, detail(evaluation)) if len(values[title]) > 1 else title
            for title, evaluation in zip(titles, evaluations, strict=True)
        ]
    return [
        dataclasses.replace(evaluation, title=f"{label} ({', '.join(filter(None, added))})" if any(added) else label)
        for (label, *added), evaluation in zip(titles, evaluations, strict=True)
    ]


def _read_checkpoint_series(run_dirs: Sequence[Path], stale: Collection[Path]) -> dict[str, CheckpointSeries]:
    return {
        _evaluation_name(run_dirs, run_dir, path): read_series(path)
        for run_dir, path in _results_directories(run_dirs)
        if (path / SERIES).exists() and path not in stale
    }


def _evaluation_names(run_dirs: Sequence[Path], paths: Collection[Path]) -> list[str]:
    return [
        _evaluation_name(run_dirs, run_dir, path) for run_dir, path in _results_directories(run_dirs) if path in paths
    ]


def _results_directories(run_dirs: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    for run_dir in run_dirs:
        for path in sorted((run_dir / EVALUATIONS).glob("[!.]*")):
            if path.is_dir():
                yield run_dir, path


def _evaluation_name(run_dirs: Sequence[Path], run_dir: Path, path: Path) -> str:
    return f"{run_name(run_dirs, run_dir)}/{path.name}" if len(run_dirs) > 1 else path.name


def run_name(run_dirs: Sequence[Path], run_dir: Path) -> str:
    """Name of one of several run directories: its folder name, or its path if folder names are not unique."""
    name = run_dir.resolve().name
    return name if sum(other.resolve().name == name for other in run_dirs) == 1 else str(run_dir)


def _read_curve(path: Path) -> Curve | None:
    lines = _read_metrics(path)
    try:
        points = _by_step(lines, "loss")
        times = [line.get("seconds") for line in lines if line.get("loss") is not None]
        seconds = float(times[-1]) if times and times[-1] is not None else None
        measured = {label: _by_step(lines, name) for name, label in HELD_OUT.items()}
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} has a step, loss or seconds that is not a number ({error}).") from error
    if not points:
        return None
    finite = {
        label: {step: x for step, x in by_step.items() if math.isfinite(x)} for label, by_step in measured.items()
    }
    return Curve(
        steps=list(points),
        losses=[loss if math.isfinite(loss) else math.nan for loss in points.values()],
        seconds=seconds,
        held_out={label: by_step for label, by_step in finite.items() if by_step},
        action_errors={
            name.removeprefix(ACTION_ERRORS): value
            for line in lines
            for name, value in line.items()
            if name.startswith(ACTION_ERRORS) and value is not None
        },
    )


def _by_step(lines: Sequence[Mapping[str, Any]], name: str) -> dict[int, float]:
    """The values of `name` in the order of steps. A resumed run may log a step twice; the later line is the valid
    one."""
    values = {int(line["step"]): float(line[name]) for line in lines if line.get(name) is not None}
    return dict(sorted(values.items()))


def _read_metrics(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    values = []
    lines = path.read_text().splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise UserError(f"Line {number} of {path} is not JSON ({error}).") from error
        if not isinstance(value, dict) or "step" not in value:
            raise UserError(f"Line {number} of {path} lacks the key 'step'.")
        values.append(value)
    return values


def _step_of(path: Path) -> tuple[int, str]:
    digits = "".join(character for character in path.stem if character.isdigit())
    return int(digits or 0), path.name
