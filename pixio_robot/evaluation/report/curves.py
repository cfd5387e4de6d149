"""Loss curves of training runs, from `metrics.jsonl`."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pixio_robot.errors import UserError

HELD_OUT = {"validation_loss": "loss", "validation_action_error": "action error"}
"""Measurements on held-out data in metrics.jsonl, and what the report calls them."""
ACTION_ERRORS = "validation_action_error/"
"""Prefix of the error of one dimension of the actions."""
TASK_ERRORS = "validation_task_error/"
"""Prefix of the error on one task of several."""


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
    task_errors: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """The last error on every task of a policy of several."""


def read_curve(path: Path) -> Curve | None:
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
        action_errors=_last_by_name(lines, ACTION_ERRORS),
        task_errors=_last_by_name(lines, TASK_ERRORS),
    )


def _last_by_name(lines: Sequence[Mapping[str, Any]], prefix: str) -> dict[str, float]:
    """The last value of every metric with this prefix, by the rest of its name."""
    return {
        name.removeprefix(prefix): value
        for line in lines
        for name, value in line.items()
        if name.startswith(prefix) and value is not None
    }


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
