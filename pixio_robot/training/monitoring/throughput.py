"""Throughput and hardware utilisation of a training run."""

from __future__ import annotations

import collections
import contextlib
import re
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import torch

# Dense bfloat16 TFLOP/s of one GPU from the vendors' data sheets (some print twice as much, with sparsity, or a board's
# two GPUs), by words of the device's name; the first match counts. TF32 runs at half of that on all of these.
PEAK_TFLOPS = {
    "GB200": 2500.0,
    "B200": 2250.0,
    "GH200": 989.0,
    "H200 NVL": 835.0,
    "H200": 989.0,
    "H100 NVL": 835.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "RTX 4090": 165.0,
}
_NOT_A_FULL_GPU = re.compile(r"\b(MIG|Laptop|D)\b|-\d+[ABCQ]$")
"""Matches the names of partial GPUs (MIG; NVIDIA's vGPU, such as A100-8C) and of slower variants (laptops, 4090 D)."""


def peak_tflops(device: torch.device, dtype: torch.dtype = torch.bfloat16) -> float | None:
    """Peak TFLOP/s of `device` in matrix products of `dtype`; float32 means TF32, as set by `pick_device`. None for a
    CPU, a part of a GPU, or a GPU that is not in the table."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    if _NOT_A_FULL_GPU.search(name):
        return None
    peak = next((peak for words, peak in PEAK_TFLOPS.items() if re.search(rf"\b{words}\b", name)), None)
    return peak / 2 if peak and dtype is torch.float32 else peak


class DataWaitTimer(Protocol):
    """Measures the time for which the computing device was idle because the next batch was not ready."""

    def time_wait(self) -> contextlib.AbstractContextManager[None]:
        """Around each wait of the host for data."""
        ...

    def read_and_reset(self) -> float:
        """Seconds since the last call."""
        ...


class HostWaitTimer:
    """For training on a CPU: the time for which the host waits."""

    def __init__(self) -> None:
        self._seconds = 0.0

    @contextlib.contextmanager
    def time_wait(self) -> Iterator[None]:
        before = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - before

    def read_and_reset(self) -> float:
        seconds, self._seconds = self._seconds, 0.0
        return seconds


def _timed_event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)


class GpuWaitTimer:
    """For training on a GPU. The host runs ahead of it: while the host waits for data, the GPU may still have work.

    One event is recorded on the GPU's stream before the host's wait and one after it. The GPU reaches the first event
    when all earlier work is done, so the time between the two events is the time it was idle. Events are read only
    after the GPU has passed them, so the host never waits for the GPU. `new_event` makes an event with `record`,
    `query` and `elapsed_time` [ms], as torch.cuda.Event.
    """

    def __init__(self, new_event: Callable[[], torch.cuda.Event] = _timed_event) -> None:
        self._new_event = new_event
        self._pending = collections.deque[tuple[torch.cuda.Event, torch.cuda.Event]]()
        self._seconds = 0.0

    @contextlib.contextmanager
    def time_wait(self) -> Iterator[None]:
        self._collect_finished()
        began, ended = self._new_event(), self._new_event()
        began.record()
        yield
        ended.record()
        self._pending.append((began, ended))

    def _collect_finished(self) -> None:
        while self._pending and self._pending[0][1].query():
            began, ended = self._pending.popleft()
            self._seconds += began.elapsed_time(ended) / 1000

    def read_and_reset(self) -> float:
        self._collect_finished()
        seconds, self._seconds = self._seconds, 0.0
        return seconds


class ThroughputMeter:
    """Measures since the last `read_and_reset`: examples per second, the share of time in which the device
    waited for data and, if FLOP and peak are known, model FLOP utilisation (MFU), the share of the peak that the
    model's arithmetic reaches."""

    def __init__(
        self, flop_per_example: float | None, peak_flop_per_second: float | None, waits: DataWaitTimer
    ) -> None:
        self._flop, self._peak, self._waits = flop_per_example, peak_flop_per_second, waits
        self._restart()

    def _restart(self) -> None:
        self.examples = 0
        self._since = time.perf_counter()
        self._paused = 0.0

    def time_data_wait(self) -> contextlib.AbstractContextManager[None]:
        return self._waits.time_wait()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude this time from all measures: validation, checkpoints."""
        before = time.perf_counter()
        yield
        self._paused += time.perf_counter() - before

    def read_and_reset(self) -> dict[str, float]:
        seconds = max(time.perf_counter() - self._since - self._paused, 1e-9)
        metrics = {
            "examples_per_second": self.examples / seconds,
            "data_wait_share": self._waits.read_and_reset() / seconds,
        }
        if self._flop and self._peak:
            metrics["mfu"] = metrics["examples_per_second"] * self._flop / self._peak
        self._restart()
        return metrics
