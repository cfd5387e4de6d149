"""Training checkpoints: `checkpoints/step_XXXXXXXX/` of safetensors and one JSON file, and `latest` naming one of them.

Nothing in them is ever unpickled.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pixio_robot.errors import UserError
from pixio_robot.files import TEMPORARY_PREFIX, atomic_directory, atomic_file, read_json, write_json

KIND = "training_state"
FORMAT_VERSION = 2
TRAINER = "trainer.json"
LATEST = "latest"

Parts = Mapping[str, Mapping[str, Tensor]]


def write_checkpoint(directory: Path, step: int, parts: Parts, trainer: Mapping[str, Any], keep: int) -> Path:
    """Write one checkpoint, point `latest` to it and remove all but the newest `keep`. A crash leaves the old ones."""
    path = directory / f"step_{step:08d}"
    header = {"kind": KIND, "format_version": FORMAT_VERSION, "step": step, "parts": sorted(parts)}
    with atomic_directory(path) as temporary:
        for name, tensors in parts.items():
            # Copies, because safetensors refuses tensors that share memory, as tied weights do.
            copies = {key: value.detach().to("cpu", copy=True).contiguous() for key, value in tensors.items()}
            save_file(copies, temporary / f"{name}.safetensors")
        write_json(temporary / TRAINER, header | dict(trainer))
    with atomic_file(directory / LATEST) as temporary:
        temporary.write_text(path.name + "\n")
    for old in _all(directory)[:-keep]:
        if old != path:
            _remove(old)
    return path


def _all(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob("step_*") if path.is_dir())


def _remove(path: Path) -> None:
    """Renamed away first, so that a kill in between leaves no half of a checkpoint under its name."""
    retired = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=path.parent))
    path.rename(retired / path.name)
    shutil.rmtree(retired)


def latest_checkpoint(directory: Path) -> Path | None:
    """The checkpoint to resume from: the one `latest` names, or the newest when that one was removed."""
    pointer = directory / LATEST
    if pointer.is_file():
        named = directory / pointer.read_text().strip()
        if named.parent == directory and (named / TRAINER).is_file():
            return named
    complete = [path for path in _all(directory) if (path / TRAINER).is_file()]
    return complete[-1] if complete else None


def read_checkpoint(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Parts and trainer values. Raises UserError for a damaged checkpoint and for one of another version."""
    way_out = f"remove {path} to continue from the checkpoint before it"
    trainer = read_json(path / TRAINER)
    if not isinstance(trainer, dict) or trainer.get("kind") != KIND:
        raise UserError(f"{path / TRAINER} is not a training checkpoint (kind {KIND!r}); {way_out}.")
    if trainer.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path} has format_version {trainer.get('format_version')!r}; this release reads {FORMAT_VERSION}."
        )
    parts = {}
    for name in trainer["parts"]:
        file = path / f"{name}.safetensors"
        try:
            parts[name] = load_file(file)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file} cannot be read ({error}); {way_out}.") from error
    return parts, trainer
