"""Throughput and hardware utilisation of a training run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import torch

# Dense bfloat16 TFLOP/s from the vendors' data sheets (some print twice as much, with sparsity), by a part of the
# device's name; the first match counts. TF32 runs at half of that on all of these.
PEAK_TFLOPS = {
    "B200": 2250.0,
    "H200 NVL": 835.0,
    "H200": 989.0,
    "H100 NVL": 835.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "RTX 4090": 165.0,
}


def peak_tflops(device: torch.device, dtype: torch.dtype = torch.bfloat16) -> float | None:
    """Peak TFLOP/s of `device` in matrix products of `dtype`; float32 means TF32, as set by `pick_device`. None for a
    CPU or a GPU that is not in the table."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    peak = next((peak for part, peak in PEAK_TFLOPS.items() if part in name), None)
    return peak / 2 if peak and dtype is torch.float32 else peak


class Pace:
    """Measures since the last `take`: examples per second, the share of time spent waiting for data and, if FLOP and
    peak are known, model FLOP utilisation (MFU), the share of the peak that the model's arithmetic reaches."""

    def __init__(self, flop_per_example: float | None, peak_flop_per_second: float | None) -> None:
        self._flop, self._peak = flop_per_example, peak_flop_per_second
        self._restart()

    def _restart(self) -> None:
        self.examples = 0
        self._since = time.perf_counter()
        self._waited = self._paused = 0.0

    @contextlib.contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        before = time.perf_counter()
        yield
        self._waited += time.perf_counter() - before

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude this time from all measures: validation, checkpoints."""
        before = time.perf_counter()
        yield
        self._paused += time.perf_counter() - before

    def take(self) -> dict[str, float]:
        seconds = max(time.perf_counter() - self._since - self._paused, 1e-9)
        paces = {"examples_per_second": self.examples / seconds, "data_wait_share": self._waited / seconds}
        if self._flop and self._peak:
            paces["mfu"] = paces["examples_per_second"] * self._flop / self._peak
        self._restart()
        return paces
