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
GPU_HIDDEN_VALUES = ("", "-1", "NoDevFiles")
"""Values of CUDA_VISIBLE_DEVICES by which a user, Ray or Slurm hides all GPUs."""


def pick_device(name: str = "auto") -> torch.device:
    """The device called `cpu`, `cuda` or `auto` (a GPU if there is one). Raises UserError if `cuda` is not available or
    PyTorch has no kernels for the GPU.

    If `auto` falls back to the CPU although there is a GPU or an NVIDIA driver, the reason is printed to stderr, once
    per process. Limits PyTorch's CPU threads, whatever the device, unless OMP_NUM_THREADS is set.
    """
    if name not in DEVICES:
        raise unknown_name("device", name, DEVICES)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(_cores_per_process())
    if name != "cpu" and can_use_gpu():
        # Operations that stay in float32 under bfloat16 autocast need no more than TF32's mantissa.
        torch.set_float32_matmul_precision("high")
        return torch.device("cuda", torch.cuda.current_device())
    if name == "cuda" and torch.cuda.is_available():
        raise UserError(f"device=cuda, but {explain_missing_kernels()} Or use device=cpu.")
    if name == "cuda":
        reason = f" {why}" if (why := explain_missing_gpu()) else ""
        raise UserError(f"device=cuda, but PyTorch finds no CUDA device; use device=cpu or device=auto.{reason}")
    if name == "auto" and (why := explain_missing_kernels() if torch.cuda.is_available() else explain_missing_gpu()):
        _warn_cpu_fallback(why)
    return torch.device("cpu")


def _cores_per_process() -> int:
    """This process's share of the usable cores, if it is one of several on this machine. Slurm states the share;
    whether it also enforces it, so that the usable cores are the share, depends on the cluster."""
    cores, processes = usable_cores(), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if processes == 1:
        return cores
    of_task = os.environ.get("SLURM_CPUS_PER_TASK")
    return min(cores, int(of_task)) if of_task else max(cores // processes, 1)


def can_use_gpu() -> bool:
    """Whether PyTorch finds a GPU and has kernels for the current one."""
    return torch.cuda.is_available() and explain_missing_kernels() is None


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether `device` has instructions for bfloat16: a GPU since Ampere, a CPU with avx512_bf16 (AMD since Zen 4,
    Intel's Xeons since Cooper Lake). Others emulate it, which is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu.get_capabilities().get("avx512_bf16"))


def explain_missing_kernels(index: int | None = None) -> str | None:
    """A message for the user if this PyTorch has no kernels for a GPU that it finds (the current one, or that of
    `index`), with advice. None if it has kernels, or if it does not say what it was built for."""
    built_for = torch.cuda.get_arch_list()
    if torch.version.hip or not built_for:
        return None
    capability = torch.cuda.get_device_capability(index)
    if any(_is_compatible(architecture, capability) for architecture in built_for):
        return None
    oldest = min(_capability(architecture) for architecture in built_for)
    advice = "PyTorch built for an older CUDA" if capability < oldest else "newer PyTorch"
    return (
        f"PyTorch {torch.__version__} has no kernels for the {torch.cuda.get_device_name(index)}, which is "
        f"sm_{capability[0]}{capability[1]}: it was built for {' '.join(built_for)}. Install a {advice}."
    )


def _is_compatible(architecture: str, capability: tuple[int, int]) -> bool:
    """Whether a GPU can run code built for `architecture`, such as sm_86 (machine code) or compute_90 (PTX, which the
    driver compiles). Machine code runs on the same major version from its minor version on, PTX on everything newer;
    with the suffix a, both run on their own version only, with f on the same major version. Source: NVIDIA's CUDA
    programming guide, compute capabilities and feature set compiler targets."""
    built = _capability(architecture)
    if architecture.endswith("a"):
        return capability == built
    same_family = capability[0] == built[0] or (architecture.startswith("compute_") and architecture[-1].isdigit())
    return same_family and capability >= built


def _capability(architecture: str) -> tuple[int, int]:
    digits = architecture.partition("_")[2].rstrip("af")
    return int(digits[:-1]), int(digits[-1])


def explain_missing_gpu() -> str | None:
    """A message for the user if PyTorch finds no GPU on a machine that has NVIDIA's driver, with advice. None if it
    finds one, if there is no driver, or if CUDA_VISIBLE_DEVICES hides all GPUs."""
    if torch.cuda.is_available() or os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in GPU_HIDDEN_VALUES:
        return None
    try:
        driver_text = DRIVER.read_text()
    except OSError:
        return None
    version = re.search(r"\b(\d{3,})(\.\d+)+\b", driver_text)
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
def _warn_cpu_fallback(why: str) -> None:
    print(f"device=auto uses the CPU: {why}", file=sys.stderr)
