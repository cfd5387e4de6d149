"""Which device trains, and with how many threads."""

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
"""That runs a PyTorch built for this CUDA: table 1 of NVIDIA's guide to CUDA compatibility, minor versions."""
NO_GPU_WANTED = ("", "-1", "NoDevFiles")
"""CUDA_VISIBLE_DEVICES of someone, Ray or Slurm who hides them all."""


def pick_device(name: str = "auto") -> torch.device:
    """`cpu`, `cuda`, or with `auto` the GPU where there is one. Raises UserError for a GPU that is not there.

    A GPU that PyTorch cannot use is told on stderr, once a process, before `auto` takes the CPU.
    """
    if name not in DEVICES:
        raise unknown_name("device", name, DEVICES)
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        reason = f" {why}" if (why := unseen_gpu()) else ""
        raise UserError(f"device=cuda, but PyTorch finds no CUDA device here; use device=cpu or device=auto.{reason}")
    if name == "auto" and not found:
        _tell_of_an_unseen_gpu()
    if name == "cpu" or not found:
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(usable_cores())
        return torch.device("cpu")
    # What is left in float32 under bfloat16 autocast does not need more than TF32's mantissa.
    torch.set_float32_matmul_precision("high")
    return torch.device("cuda", torch.cuda.current_device())


def unseen_gpu() -> str | None:
    """Why PyTorch may not see the GPU of a machine that has NVIDIA's driver, and what to do about it. None where it
    sees one, where there is no driver, and where CUDA_VISIBLE_DEVICES hides all GPUs."""
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
        return f"{driver} is here, but this PyTorch was built without CUDA: install one built with it."
    oldest = OLDEST_DRIVER.get(built_for.partition(".")[0])
    if version and oldest and int(version[1]) >= oldest:
        advice = "see that `nvidia-smi` lists it; a container has to be given it"
    else:
        newer = f" to {oldest} or newer" if oldest else ""
        advice = f"update the driver{newer}, or install a PyTorch built for an older CUDA"
    return f"{driver} is here, but this PyTorch, built for CUDA {built_for}, finds no GPU: {advice}."


@functools.cache
def _tell_of_an_unseen_gpu() -> None:
    if why := unseen_gpu():
        print(f"device=auto takes the CPU: {why}", file=sys.stderr)
