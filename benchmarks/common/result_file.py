"""The JSON of `results/`: the options that ask for it, where its numbers come from, and writing it.

A script that reads its command line with `parse_arguments` prints a user's mistake as one line.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixio_robot.errors import UserError
from pixio_robot.machine import usable_cores

if TYPE_CHECKING:  # some benchmarks measure the memory of a process without torch
    import torch


def parse_arguments(parser: argparse.ArgumentParser, *, note: bool = False) -> argparse.Namespace:
    """The command line, with the options `--out` and, if wanted, `--note`."""
    parser.add_argument("--out", type=Path, help="write the result as JSON here")
    if note:
        parser.add_argument("--note", default="", help="what else ran on the machine")
    sys.excepthook = _print_user_error
    return parser.parse_args()


def measured_settings(arguments: argparse.Namespace, *internal: str) -> dict[str, Any]:
    """What was measured, of the command line; without the names in `internal`, which a script gives to itself only."""
    return {name: value for name, value in vars(arguments).items() if name not in ("out", "note", *internal)}


def provenance(*packages: str, device: torch.device | None = None, note: str = "", **versions: str) -> dict[str, Any]:
    """Commit, device (the CPU and its cores unless given), note (left out where empty) and the versions of `packages`,
    beside those given by name: what a package's metadata do not tell, such as the build of torch."""
    where = f"{platform.processor() or platform.machine()}, {usable_cores()} cores"
    return {
        "commit": git_commit(),
        "device": where if device is None else _torch_device(device),
        **({"note": note} if note else {}),
        "versions": {name: version(name) for name in packages} | versions,
    }


def save_result(result: Mapping[str, Any], out: Path | None) -> None:
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n")


def git_commit() -> str:
    """Of this checkout, with `+changes` where it has any; empty outside of one."""
    return _git("rev-parse", "HEAD") + ("+changes" if _git("status", "--porcelain") else "")


def _git(*words: str) -> str:
    found = subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return found.stdout.strip()


def _torch_device(device: torch.device) -> str:
    """Its name, and the host's cores and threads."""
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    return f"{name}, {usable_cores()} cores, {torch.get_num_threads()} threads"


def _print_user_error(kind: type[BaseException], error: BaseException, where: Any) -> None:
    if issubclass(kind, UserError):
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, where)
