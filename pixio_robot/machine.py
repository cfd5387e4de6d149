"""What the machine offers: cores that may be used, and copies to its GPU."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """Cores this process may use. PyTorch counts the machine's, which is far too many in a small container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CGROUP_LIMIT.read_text().split()
        cores = min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        pass  # no cgroup v2, or its limit is `max`
    return max(cores, 1)


def pinned(tensor: Tensor) -> Tensor:
    """In memory that a GPU reads by itself if this process uses one, else as it is: for a thread that prepares what
    another will take `to_device`."""
    import torch

    return tensor.pin_memory() if torch.cuda.is_initialized() else tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy without making the host wait for what the GPU is still busy with. That takes pinned memory: what is not
    `pinned` yet is copied there first, on the thread that calls."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
