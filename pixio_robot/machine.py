"""The machine's resources: usable CPU cores, copies to the GPU, and the environment of this process."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """Number of cores this process may use. PyTorch counts all of the machine's, far too many in a small container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CGROUP_LIMIT.read_text().split()
        cores = min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        pass  # no cgroup v2, or its limit is `max`
    return max(cores, 1)


@contextlib.contextmanager
def temporary_environment(values: Mapping[str, str]) -> Iterator[None]:
    """Context with these environment variables; afterwards the earlier values are restored."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def pin_memory(tensor: Tensor) -> Tensor:
    """Copy into pinned memory if this process uses a GPU; otherwise return the tensor unchanged. For a thread that
    prepares batches which another thread moves with `to_device`."""
    import torch

    return tensor.pin_memory() if torch.cuda.is_initialized() else tensor


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Copy to `device` without waiting for work queued on the GPU. This needs pinned memory: a tensor that is not
    pinned yet is pinned first, on the calling thread."""
    import torch

    if torch.device(device).type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


@contextlib.contextmanager
def disable_tf32() -> Iterator[None]:
    """Multiply float32 matrices without TF32, which training allows on a GPU (`pick_device`): for results that must not
    depend on the device's rounding."""
    import torch

    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
