"""Where a result comes from: commit, device and versions, as every JSON of `results/` has them.

A script that imports this prints a user's mistake as one line.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixio_robot.errors import UserError
from pixio_robot.machine import usable_cores

if TYPE_CHECKING:  # some benchmarks measure the memory of a process without torch
    import torch


def commit() -> str:
    """Of this checkout; empty outside of one."""
    words = ["git", "rev-parse", "HEAD"]
    return subprocess.run(words, cwd=Path(__file__).parent, capture_output=True, text=True, check=False).stdout.strip()


def add_note(parser: argparse.ArgumentParser) -> None:
    """The option whose text goes to `provenance`."""
    parser.add_argument("--note", default="", help="what else ran on the machine")


def provenance(versions: Mapping[str, str], device: str = "", note: str = "") -> dict[str, Any]:
    """device: the CPU and its cores unless given. note: what else ran on the machine, left out where empty."""
    device = device or f"{platform.processor() or platform.machine()}, {usable_cores()} cores"
    said = {"note": note} if note else {}
    return {"commit": commit(), "device": device, **said, "versions": dict(versions)}


def torch_device(device: torch.device) -> str:
    """The name of a device of torch, and the host's cores and threads."""
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    return f"{name}, {usable_cores()} cores, {torch.get_num_threads()} threads"


def _in_one_line(kind: type[BaseException], error: BaseException, where: Any) -> None:
    if issubclass(kind, UserError):
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, where)


sys.excepthook = _in_one_line
