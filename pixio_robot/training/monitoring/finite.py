"""Stop a run whose loss is no longer finite, and report the examples of its last batches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pixio_robot.errors import UserError
from pixio_robot.files import write_json
from pixio_robot.training.distributed.processes import Processes

NON_FINITE = "nonfinite.json"


def check_finite(
    values: Mapping[str, list[float]],
    step: int,
    accumulate: int,
    recent: Sequence[list[str] | None],
    run_dir: Path,
    processes: Processes,
) -> None:
    """Raise UserError if a loss or gradient norm up to `step` is not finite, and write the `ids` of the last batches.

    `values` are those of all processes, `recent` the ids of this process's batches.
    """
    broken = {
        name: min(i for i, value in enumerate(values[name]) if not math.isfinite(value))
        for name in ("loss", "grad_norm")
        if not all(map(math.isfinite, values.get(name, [])))
    }
    if not broken:
        return
    # There is one loss per batch and one norm per update; both lists end at the current step.
    steps = {
        name: step - (len(values[name]) - 1 - i) // (accumulate if name == "loss" else 1) for name, i in broken.items()
    }
    name = min(steps, key=lambda name: steps[name])
    path = run_dir / NON_FINITE
    everyones = processes.all_gather(list(recent))
    if processes.is_main:
        newest_first = enumerate(reversed(list(zip(*everyones, strict=True))))
        batches = [{"step": step - i // accumulate, "ids": _concatenate_ids(parts)} for i, parts in newest_first][::-1]
        write_json(path, {"what": name, "step": steps[name], "batches": batches})
    what = "loss" if name == "loss" else "gradient"
    raise UserError(
        f"The {what} was not finite at step {steps[name]}; the examples of the last batches are listed in {path}. "
        f"Inspect them, or train with a lower optim.lr, a smaller loop.grad_clip or loop.dtype=float32."
    )


def _concatenate_ids(parts: Sequence[list[str] | None]) -> list[str] | None:
    known: list[Any] = [part for part in parts if part is not None]
    return [identity for part in known for identity in part] if known else None
