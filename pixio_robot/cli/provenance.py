"""Provenance of a result: versions, devices, commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from pixio_robot.machine import usable_cores

PACKAGES = ("pixio-robot", "torch", "numpy", "mujoco", "robosuite", "gymnasium", "zarr", "lerobot", "hydra-core", "av")

GPU_DEVICE_NODES = ("/dev/nvidiactl", "/dev/nvmap", "/dev/dxg", "/dev/kfd")
"""At least one of these exists where torch finds a GPU: of NVIDIA's driver, Jetson's, WSL's, AMD's."""


def _commit() -> str:
    """The commit of the checkout, with `+changes` if tracked files are modified; `unknown` outside a checkout."""
    root = Path(__file__).parents[2]

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True).stdout

    try:
        commit = git("rev-parse", "--short=12", "HEAD").strip()
        return f"{commit}+changes" if git("status", "--porcelain", "--untracked-files=no").strip() else commit
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _device() -> str:
    # Importing torch takes two seconds, which are saved where the kernel has no GPU.
    if any(Path(node).exists() for node in GPU_DEVICE_NODES):
        import torch

        if torch.cuda.device_count():
            return torch.cuda.get_device_name(0)
    return "CPU"


def describe_environment() -> dict[str, Any]:
    return {
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
        "device": _device(),
        "cpu": f"{_processor()}, {usable_cores()} cores",
        "platform": platform.platform(),
        "mujoco_gl": os.environ.get("MUJOCO_GL", ""),
        "commit": _commit(),
    }
