"""What a run reports: values gathered on the device, fetched now and then, written to JSON lines and TensorBoard."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from pixio_robot.files import atomic_file

METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"


class Window:
    """Scalars since the last report. They stay on the device, so that collecting them never makes the host wait."""

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor]] = {}

    def add(self, name: str, value: Tensor) -> None:
        self._values.setdefault(name, []).append(value.detach().float().reshape(()))

    def fetch(self) -> dict[str, list[float]]:
        """Every value in order of arrival, with one copy to the host; the window keeps them."""
        if not self._values:
            return {}
        device = next(iter(self._values.values()))[0].device
        everything = torch.stack([value.to(device) for values in self._values.values() for value in values]).tolist()
        fetched, position = {}, 0
        for name, values in self._values.items():
            fetched[name] = everything[position : position + len(values)]
            position += len(values)
        return fetched

    def clear(self) -> None:
        self._values = {}

    def tensors(self) -> dict[str, Tensor]:
        return {name: torch.stack(values) for name, values in self._values.items()}

    def load(self, tensors: Mapping[str, Tensor], device: torch.device) -> None:
        self._values = {name: list(values.to(device).unbind()) for name, values in tensors.items()}


def means(values: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: math.fsum(of_name) / len(of_name) for name, of_name in values.items()}


class MetricsLog:
    """Appends to `metrics.jsonl` and TensorBoard; what an earlier process wrote beyond `step` is dropped first."""

    def __init__(self, run_dir: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second to import

        self.path = run_dir / METRICS
        self.last = truncate_after(self.path, step)
        self._file = self.path.open("a")
        self._board = SummaryWriter(str(run_dir / TENSORBOARD), purge_step=step + 1)

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._file.close()
        self._board.close()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One line, at once. Values that are not finite become null: JSON has no word for them."""
        line = {"step": step} | {name: value if math.isfinite(value) else None for name, value in values.items()}
        self.last |= line
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def sync(self) -> None:
        """To the disk: before a checkpoint, so that no line that belongs to it can be lost."""
        os.fsync(self._file.fileno())
        self._board.flush()


def truncate_after(path: Path, step: int) -> dict[str, Any]:
    """Drop lines of later steps and a torn last line; returns the last value of every name that stays."""
    kept, last = [], {}
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            values = json.loads(line)
        except json.JSONDecodeError:
            continue  # the process was killed while it wrote
        if values["step"] <= step:
            kept.append(line + "\n")
            last |= values
    with atomic_file(path) as temporary:
        temporary.write_text("".join(kept))
    return last
