"""Metrics of a run, collected on the device and fetched periodically (written by loggers.py)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pixio_robot.training.distributed.processes import Processes


class MetricBuffer:
    """Scalars since the last report. They stay on the device, so that collecting them never blocks the host."""

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor]] = {}

    def add(self, name: str, value: Tensor) -> None:
        self._values.setdefault(name, []).append(value.detach().float().reshape(()))

    def fetch(self) -> dict[str, list[float]]:
        """All values in order of arrival, in one copy to the host; the buffer keeps them."""
        if not self._values:
            return {}
        device = next(iter(self._values.values()))[0].device
        everything = torch.stack([value.to(device) for values in self._values.values() for value in values]).tolist()
        fetched, position = {}, 0
        for name, values in self._values.items():
            fetched[name] = everything[position : position + len(values)]
            position += len(values)
        return fetched

    def average(self, processes: Processes) -> None:
        """Replace every value by its mean over the processes."""
        if processes.world_size > 1 and self._values:
            together = processes.all_reduce_mean(torch.cat([torch.stack(values) for values in self._values.values()]))
            parts = together.split([len(values) for values in self._values.values()])
            self._values = {name: list(part.unbind()) for name, part in zip(self._values, parts, strict=True)}

    def clear(self) -> None:
        self._values = {}

    def tensors(self) -> dict[str, Tensor]:
        return {name: torch.stack(values) for name, values in self._values.items()}

    def load(self, tensors: Mapping[str, Tensor], device: torch.device) -> None:
        self._values = {name: list(values.to(device).unbind()) for name, values in tensors.items()}


def average_metrics(values: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: math.fsum(of_name) / len(of_name) for name, of_name in values.items()}


def format_rate(metrics: Mapping[str, float]) -> str:
    """`loss 0.1234, 850 examples/s, MFU 31%, 2% waiting for data`."""
    mfu = f", MFU {metrics['mfu']:.0%}" if "mfu" in metrics else ""
    return (
        f"loss {metrics['loss']:.4f}, {metrics['examples_per_second']:.0f} examples/s{mfu}, "
        f"{metrics['data_wait_share']:.0%} waiting for data"
    )


def format_main_numbers(values: Mapping[str, Any]) -> str:
    """`validation_loss 0.1234`: the numbers, without images and components (`validation_action_error/gripper`)."""
    numbers = {name: value for name, value in values.items() if isinstance(value, int | float) and "/" not in name}
    return ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
