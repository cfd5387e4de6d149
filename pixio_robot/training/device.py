"""Which device trains, and with how many threads."""

from __future__ import annotations

import os

import torch

from pixio_robot.errors import UserError, unknown_name
from pixio_robot.machine import usable_cores

DEVICES = ("auto", "cpu", "cuda")


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
