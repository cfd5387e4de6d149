"""How the scripts measure: the sides in turn, by clocks that a busy machine does not mislead."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # some benchmarks measure the memory of a process without torch
    import torch

Clock = Callable[[], float]
"""Seconds since some moment; `time.process_time` counts the CPU seconds of this process and its threads."""


def measure_alternating[T](
    names: Iterable[str], measure: Callable[[str, int], T], rounds: int, warm_up: int = 0
) -> dict[str, list[T]]:
    """`measure(name, round)` of every side in every round. The sides alternate, so that a change of the machine's load
    meets all alike. The first `warm_up` rounds do not count: they compile, allocate, open files."""
    found: dict[str, list[T]] = {name: [] for name in names}
    for round_ in range(warm_up + rounds):
        for name, counted in found.items():
            one = measure(name, round_)
            if round_ >= warm_up:
                counted.append(one)
    return found


def time_alternating(
    sides: Mapping[str, Callable[[], object]], clock: Clock, rounds: int, warm_up: int
) -> dict[str, list[float]]:
    """`measure_seconds` of every side in every round."""
    return measure_alternating(sides, lambda name, _: measure_seconds(sides[name], clock), rounds, warm_up)


def medians(found: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Of what `measure_alternating` found for each side."""
    return {name: float(np.median(values)) for name, values in found.items()}


def measure_seconds(work: Callable[[], object], clock: Clock = time.process_time) -> float:
    """Seconds of `clock` that `work` takes."""
    began = clock()
    work()
    return clock() - began


def cpu_seconds() -> float:
    """A clock: CPU seconds of this process and its ended children."""
    parts = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in parts)


def device_clock(device: torch.device, threads: int = 1) -> Clock:
    """On a GPU the wall clock, read when all that was queued is done. On a CPU the CPU seconds of this process, shared
    among so many threads: what an idle machine takes, on a busy one too."""
    if device.type == "cpu":
        return lambda: time.process_time() / threads
    import torch

    def when_done() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return when_done


def peak_memory(work: Callable[[], object], device: torch.device) -> float:
    """The largest memory during `work` [MiB]: allocated by torch on a GPU, of the whole process on a CPU."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated() / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    work()
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**10


def fit_line(points: Sequence[Mapping[str, Any]], x: str, y: str) -> tuple[float, float, float]:
    """Slope, value at 0 and R^2 of the line through `points`, whose keys are `x` and `y`."""
    along, up = (np.array([point[key] for point in points]) for key in (x, y))
    slope, start = np.polyfit(along, up, 1)
    return float(slope), float(start), float(np.corrcoef(along, up)[0, 1] ** 2)
