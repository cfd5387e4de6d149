"""Which device trains, and with how many threads."""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch
from torch import Tensor

from pixio_robot.errors import UserError, unknown_name

DEVICES = ("auto", "cpu", "cuda")
CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def pick_device(name: str = "auto") -> torch.device:
    """`cpu`, `cuda`, or with `auto` the GPU where there is one. Raises UserError for a GPU that is not there."""
    if name not in DEVICES:
        raise unknown_name("device", name, DEVICES)
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise UserError("device=cuda, but PyTorch finds no CUDA device here; use device=cpu or device=auto.")
    if name == "cpu" or not found:
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(usable_cores())
        return torch.device("cpu")
    # What is left in float32 under bfloat16 autocast does not need more than TF32's mantissa.
    torch.set_float32_matmul_precision("high")
    return torch.device("cuda", torch.cuda.current_device())


def usable_cores() -> int:
    """Cores this process may use. PyTorch counts the machine's, which is far too many in a small container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CGROUP_LIMIT.read_text().split()
        cores = min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        pass  # no cgroup v2, or its limit is `max`
    return max(cores, 1)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy without making the host wait for what the GPU is still busy with, which takes pinned memory."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
