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


def describe_environment() -> dict[str, Any]:
    import torch

    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
        "device": devices[0] if devices else "CPU",
        "cpu": f"{_processor()}, {usable_cores()} cores",
        "platform": platform.platform(),
        "mujoco_gl": os.environ.get("MUJOCO_GL", ""),
        "commit": _commit(),
    }
