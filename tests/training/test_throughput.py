"""What the reported shares are shares of: of a GPU's peak, and of the time in which the device waits for data."""

from __future__ import annotations

import functools
import types
import weakref
from typing import Any

import pytest
import torch

from pixio_robot.training.monitoring import throughput
from pixio_robot.training.monitoring.throughput import GpuWaitTimer, HostWaitTimer, ThroughputMeter, peak_tflops


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989.0),
        ("NVIDIA H200 NVL", 835.0),
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 NVL", 835.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA A100 80GB PCIe", 312.0),
        ("NVIDIA B200", 2250.0),
        ("NVIDIA GB200", 2500.0),
        ("NVIDIA GH200 480GB", 989.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA GeForce RTX 4090", 165.0),
        ("NVIDIA RTX A1000", None),
        ("NVIDIA A100X", None),
        ("NVIDIA L40", None),
        ("NVIDIA H20", None),
        ("NVIDIA H200 MIG 1g.18gb", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", None),
        ("GRID A100-8C", None),
        ("NVIDIA A100-1-5C", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA Unheard Of", None),
    ],
)
def test_the_peak_is_that_of_the_card_and_of_the_precision(name: str, peak: float | None, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    gpu = torch.device("cuda", 0)
    assert peak_tflops(gpu) == peak_tflops(gpu, torch.bfloat16) == peak
    assert peak_tflops(gpu, torch.float32) == (None if peak is None else peak / 2)
    assert peak_tflops(torch.device("cpu")) is None


class Gpu:
    """A GPU that works off what the host gives it, and the clock of both [s]."""

    def __init__(self) -> None:
        self.now = self.done_at = 0.0
        self.events = weakref.WeakSet[Event]()

    def work(self, seconds: float) -> None:
        self.done_at = max(self.now, self.done_at) + seconds


class Event:
    """A torch.cuda.Event without `synchronize`: nobody may wait for one."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        gpu.events.add(self)

    def record(self) -> None:
        self.at = max(self._gpu.now, self._gpu.done_at)

    def query(self) -> bool:
        return self.at <= self._gpu.now

    def elapsed_time(self, end: Event) -> float:
        assert self.query()
        assert end.query()
        return 1000 * (end.at - self.at)


def shares(gpu: Gpu, waits: Any, batch: float, step: float, launch: float, log_every: int, monkeypatch) -> list[float]:
    """`data_wait_share` of five reports. One thread makes a batch in `batch` seconds and keeps two ready; the host
    starts a step in `launch` seconds, for which the GPU works for `step` seconds."""
    monkeypatch.setattr(throughput, "time", types.SimpleNamespace(perf_counter=lambda: gpu.now))
    meter, reported = ThroughputMeter(None, None, waits), []
    ready, taken = [batch], [0.0, 0.0]
    for number in range(1, 5 * log_every + 1):
        with meter.time_data_wait():
            gpu.now = max(gpu.now, ready[-1])
            taken.append(gpu.now)
            ready.append(max(ready[-1], taken[-2]) + batch)
        gpu.now += launch
        gpu.work(step)
        if number % log_every == 0:
            gpu.now = max(gpu.now, gpu.done_at)  # the report fetches the losses
            reported.append(meter.read_and_reset()["data_wait_share"])
    return reported


@pytest.mark.parametrize(
    ("batch", "step", "share"),
    [
        (0.001, 0.030, 0.0),
        (0.028, 0.030, 0.0),  # the host waits for 24 of each 30 ms, while the GPU works
        (0.029, 0.060, 0.0),
        (0.060, 0.030, 0.5 - 4 / 60),  # idle for 30 ms of 60, in 4 of which the host starts the step
        (0.400, 0.010, 1 - 14 / 400),
    ],
)
def test_gpu_wait_is_the_idle_time_of_the_gpu(batch: float, step: float, share: float, monkeypatch) -> None:
    gpu = Gpu()
    waits = GpuWaitTimer(functools.partial(Event, gpu))
    for reported in shares(gpu, waits, batch, step, 0.004, 100, monkeypatch)[1:]:
        assert reported == pytest.approx(share, abs=0.015)  # a report lets the GPU run dry once
    assert not gpu.events


def test_cuda_events_are_released_between_reports(monkeypatch) -> None:
    gpu = Gpu()
    waits = GpuWaitTimer(functools.partial(Event, gpu))
    for _ in range(500):
        with waits.time_wait():
            gpu.now += 0.010
        gpu.work(0.005)
        assert len(gpu.events) <= 4
    assert waits.read_and_reset() == pytest.approx(5.0 - 499 * 0.005)
    assert waits.read_and_reset() == 0


def test_cpu_wait_is_the_wait_of_the_host(monkeypatch) -> None:
    host = Gpu()
    reported = shares(host, HostWaitTimer(), 0.040, 0.0, 0.030, 100, monkeypatch)
    assert reported[1:] == pytest.approx([0.25] * 4)
