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
LESSER = re.compile(r"\b(MIG|Laptop|D)\b|-\d+[ABCQ]$")
"""In the names of parts of a GPU (MIG; NVIDIA's vGPU, such as A100-8C) and of lesser kinds (for laptops, 4090 D)."""


def peak_tflops(device: torch.device, dtype: torch.dtype = torch.bfloat16) -> float | None:
    """Peak TFLOP/s of `device` in matrix products of `dtype`; float32 means TF32, as set by `pick_device`. None for a
    CPU, a part of a GPU, or a GPU that is not in the table."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    if LESSER.search(name):
        return None
    peak = next((peak for words, peak in PEAK_TFLOPS.items() if re.search(rf"\b{words}\b", name)), None)
    return peak / 2 if peak and dtype is torch.float32 else peak


class Waits(Protocol):
    """Adds up the time for which the computing device had nothing to do because data were missing."""

    def waiting(self) -> contextlib.AbstractContextManager[None]:
        """Around each wait of the host for data."""
        ...

    def take(self) -> float:
        """Seconds since the last `take`."""
        ...


class WaitsOfTheHost:
    """For a CPU, which waits itself."""

    def __init__(self) -> None:
        self._seconds = 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        before = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - before

    def take(self) -> float:
        seconds, self._seconds = self._seconds, 0.0
        return seconds


def _timed_event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)


class WaitsOfTheGpu:
    """For a GPU, which the host runs ahead of: while the host waits for data, the GPU may still have work.

    An event before and one after the host's wait are on the GPU's stream. It reaches the first when all earlier work is
    done, so the time between the two is what it stood idle. Both are read once it has passed them: the host never
    waits for the GPU. `new_event` makes an event with `record`, `query` and `elapsed_time` [ms], as torch.cuda.Event.
    """

    def __init__(self, new_event: Callable[[], torch.cuda.Event] = _timed_event) -> None:
        self._new_event = new_event
        self._pending = collections.deque[tuple[torch.cuda.Event, torch.cuda.Event]]()
        self._seconds = 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        self._read_those_passed()
        began, ended = self._new_event(), self._new_event()
        began.record()
        yield
        ended.record()
        self._pending.append((began, ended))

    def _read_those_passed(self) -> None:
        while self._pending and self._pending[0][1].query():
            began, ended = self._pending.popleft()
            self._seconds += began.elapsed_time(ended) / 1000

    def take(self) -> float:
        self._read_those_passed()
        seconds, self._seconds = self._seconds, 0.0
        return seconds


class Pace:
    """Measures since the last `take`: examples per second, the share of time in which the device had nothing to do
    for want of data and, if FLOP and peak are known, model FLOP utilisation (MFU), the share of the peak that the
    model's arithmetic reaches."""

    def __init__(self, flop_per_example: float | None, peak_flop_per_second: float | None, waits: Waits) -> None:
        self._flop, self._peak, self._waits = flop_per_example, peak_flop_per_second, waits
        self._restart()

    def _restart(self) -> None:
        self.examples = 0
        self._since = time.perf_counter()
        self._paused = 0.0

    def waiting_for_data(self) -> contextlib.AbstractContextManager[None]:
        return self._waits.waiting()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude this time from all measures: validation, checkpoints."""
        before = time.perf_counter()
        yield
        self._paused += time.perf_counter() - before

    def take(self) -> dict[str, float]:
        seconds = max(time.perf_counter() - self._since - self._paused, 1e-9)
        paces = {"examples_per_second": self.examples / seconds, "data_wait_share": self._waits.take() / seconds}
        if self._flop and self._peak:
            paces["mfu"] = paces["examples_per_second"] * self._flop / self._peak
        self._restart()
        return paces
