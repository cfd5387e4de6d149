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
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pixio_robot.data.demos.store import DemoStore
from pixio_robot.errors import UserError
from pixio_robot.evaluation.checkpoint_series import CheckpointSeries
from pixio_robot.evaluation.report.curves import Curve, read_curve
from pixio_robot.evaluation.report.evaluations import (
    EVALUATIONS,
    Evaluation,
    evaluation_names,
    read_checkpoint_series,
    read_evaluations,
)
from pixio_robot.evaluation.results import EPISODES
from pixio_robot.files import read_json


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One command of the pipeline."""

    stage: str
    command: str
    seconds: float


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
    evaluations, unfinished = read_evaluations([run_dir], stale)
    curves = {path.parent.name: read_curve(path) for path in sorted(run_dir.glob("policies/*/metrics.jsonl"))}
    inputs = ReportInputs(
        run_dir=run_dir,
        stages=stages,
        environment=environment,
        frames=read_json(manifest) if (manifest := run_dir / "frames" / "manifest.json").is_file() else None,
        demos=_describe_demonstrations(run_dir / "demos"),
        pretraining=read_curve(run_dir / "pretrain" / "metrics.jsonl"),
        panels=sorted(run_dir.glob("pretrain/panels/step_*.png"), key=_step_of),
        policies={name: curve for name, curve in curves.items() if curve is not None},
        evaluations=evaluations,
        series=read_checkpoint_series([run_dir], stale),
        unfinished=unfinished,
        stale=evaluation_names([run_dir], stale),
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
    evaluations, unfinished = read_evaluations(run_dirs, stale)
    return ReportInputs(
        run_dir=run_dirs[0],
        compared=run_dirs,
        evaluations=evaluations,
        series=read_checkpoint_series(run_dirs, stale),
        unfinished=unfinished,
        stale=evaluation_names(run_dirs, stale),
    )


def _step_of(path: Path) -> tuple[int, str]:
    digits = "".join(character for character in path.stem if character.isdigit())
    return int(digits or 0), path.name
