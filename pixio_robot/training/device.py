"""Choice of the training device and of the number of CPU threads."""

from __future__ import annotations

import functools
import os
import re
import sys
from pathlib import Path

import torch

from pixio_robot.errors import UserError, unknown_name
from pixio_robot.machine import usable_cores

DEVICES = ("auto", "cpu", "cuda")
DRIVER = Path("/proc/driver/nvidia/version")
OLDEST_DRIVER = {"12": 525, "13": 580}
"""Oldest driver for each CUDA major version that PyTorch is built for: table 1, minor version compatibility, of
NVIDIA's guide to CUDA compatibility."""
NO_GPU_WANTED = ("", "-1", "NoDevFiles")
"""Values of CUDA_VISIBLE_DEVICES by which a user, Ray or Slurm hides all GPUs."""


def pick_device(name: str = "auto") -> torch.device:
    """The device called `cpu`, `cuda` or `auto` (a GPU if there is one). Raises UserError if `cuda` is not available.

    If `auto` falls back to the CPU although an NVIDIA driver is installed, the reason is printed to stderr, once per
    process.
    """
    if name not in DEVICES:
        raise unknown_name("device", name, DEVICES)
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        reason = f" {why}" if (why := unseen_gpu()) else ""
        raise UserError(f"device=cuda, but PyTorch finds no CUDA device; use device=cpu or device=auto.{reason}")
    if name == "auto" and not found:
        _tell_of_an_unseen_gpu()
    if name == "cpu" or not found:
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(usable_cores())
        return torch.device("cpu")
    # Operations that stay in float32 under bfloat16 autocast need no more than TF32's mantissa.
    torch.set_float32_matmul_precision("high")
    return torch.device("cuda", torch.cuda.current_device())


def unseen_gpu() -> str | None:
    """Why PyTorch may not see the GPU on a machine that has NVIDIA's driver, and what to do about it. None if it sees
    one, if there is no driver, or if CUDA_VISIBLE_DEVICES hides all GPUs."""
    if torch.cuda.is_available() or os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in NO_GPU_WANTED:
        return None
    try:
        said = DRIVER.read_text()
    except OSError:
        return None
    version = re.search(r"\b(\d{3,})(\.\d+)+\b", said)
    driver = f"NVIDIA's driver {version[0]}" if version else "NVIDIA's driver"
    built_for = torch.version.cuda
    if built_for is None:
        return f"{driver} is installed, but this PyTorch was built without CUDA: install a CUDA build."
    oldest = OLDEST_DRIVER.get(built_for.partition(".")[0])
    if version and oldest and int(version[1]) >= oldest:
        advice = "check that `nvidia-smi` lists it; a container needs access to it (docker run --gpus all)"
    else:
        newer = f" to {oldest} or newer" if oldest else ""
        advice = f"update the driver{newer}, or install a PyTorch built for an older CUDA"
    return f"{driver} is installed, but this PyTorch, built for CUDA {built_for}, finds no GPU: {advice}."


@functools.cache
def _tell_of_an_unseen_gpu() -> None:
    if why := unseen_gpu():
        print(f"device=auto uses the CPU: {why}", file=sys.stderr)
