"""Training checkpoints: `checkpoints/step_XXXXXXXX/` with safetensors and a JSON file, and `latest`, naming the newest.

    model/, optimizer/, ema/         possibly sharded tensors: each process writes its part (sharded_files.py)
    random.safetensors, window.safetensors
    trainer.json                     everything else, and the list of all files; written last

`checkpoints/frozen/` is written once and contains the frozen weights of the model, so that a frozen encoder of 2 GB is
not stored again with every checkpoint of a small policy.

Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pixio_robot.errors import UserError
from pixio_robot.files import TEMPORARY_PREFIX, atomic_directory, atomic_file, read_json, write_json
from pixio_robot.training.distributed.processes import current_processes
from pixio_robot.training.distributed.sharded_files import SUFFIX, load_sharded, read_sharded_sizes, save_sharded
from pixio_robot.vision.safetensors_file import save_tensors

KIND = "training_state"
FORMAT_VERSION = 4
TRAINER = "trainer.json"
LATEST = "latest"
MODEL = "model"
FROZEN = "frozen"

Parts = Mapping[str, Mapping[str, Tensor]]


def write_checkpoint(
    directory: Path,
    step: int,
    sharded: Parts,
    parts: Parts,
    trainer: Mapping[str, Any],
    keep: int,
    frozen: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write a checkpoint, point `latest` to it and remove all but the newest `keep`. A crash leaves old ones intact.

    A collective call, for a directory shared by all processes: each process writes its part of `sharded`, the main
    process everything else. `frozen`: weights of the model that never change in this run, written with its first
    checkpoint.
    """
    processes = current_processes()
    # Frozen weights without a checkpoint may belong to another run that was killed before its first checkpoint.
    has_frozen = (directory / FROZEN).is_dir() and latest_checkpoint(directory) is not None
    if frozen and not processes.all_gather(has_frozen)[0]:
        with _shared_atomic_directory(directory / FROZEN) as temporary:
            save_sharded(temporary, frozen)
    path = directory / f"step_{step:08d}"
    with _shared_atomic_directory(path) as temporary:
        for name, tensors in sharded.items():
            save_sharded(temporary / name, tensors)
        if processes.is_main:
            for name, tensors in parts.items():
                copies = {key: value.detach().to("cpu", copy=True).contiguous() for key, value in tensors.items()}
                save_tensors(copies, temporary / f"{name}{SUFFIX}")
            files = sorted(str(file.relative_to(temporary)) for file in temporary.rglob(f"*{SUFFIX}"))
            header = {"kind": KIND, "format_version": FORMAT_VERSION, "step": step, "files": files}
            write_json(temporary / TRAINER, header | {"frozen": bool(frozen)} | dict(trainer))
    if processes.is_main:
        with atomic_file(directory / LATEST) as pointer:
            pointer.write_text(path.name + "\n")
        for old in _list_checkpoints(directory)[:-keep]:
            if old != path:
                _remove_checkpoint(old)
    return path


def update_trainer(directory: Path, values: Mapping[str, Any]) -> None:
    """Replace values of `trainer.json` in the newest checkpoint."""
    path = latest_checkpoint(directory)
    assert path is not None
    write_json(path / TRAINER, read_json(path / TRAINER) | dict(values))


@contextlib.contextmanager
def _shared_atomic_directory(path: Path) -> Iterator[Path]:
    """`atomic_directory` created by the first process, for all processes to write to."""
    processes = current_processes()
    with atomic_directory(path) if processes.is_main else contextlib.nullcontext() as own:
        yield Path(processes.all_gather(str(own))[0])


def _list_checkpoints(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob("step_*") if path.is_dir())


def _remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint, renaming it first so that an interruption leaves no partial checkpoint under its name."""
    retired = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=path.parent))
    path.rename(retired / path.name)
    shutil.rmtree(retired)


def latest_checkpoint(directory: Path) -> Path | None:
    """The checkpoint to resume from: the one `latest` names, or the newest complete one if it was removed."""
    pointer = directory / LATEST
    if pointer.is_file():
        named = directory / pointer.read_text().strip()
        if named.parent == directory and (named / TRAINER).is_file():
            return named
    complete = [path for path in _list_checkpoints(directory) if (path / TRAINER).is_file()]
    return complete[-1] if complete else None


def read_checkpoint(
    path: Path,
) -> tuple[dict[str, dict[str, torch.Size]], dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Read a checkpoint except for the sharded tensors.

    Returns names and sizes of the sharded tensors by part, to be read with `load_weights` and
    `load_sharded(path / part, ...)`; the other parts; and the values of `trainer.json`. Raises UserError if the
    checkpoint is damaged or has an unsupported version.
    """
    remedy = f"remove {path} to continue from the previous checkpoint"
    trainer = read_json(path / TRAINER)
    if not isinstance(trainer, dict) or trainer.get("kind") != KIND:
        raise UserError(f"{path / TRAINER} is not a training checkpoint (kind {KIND!r}); {remedy}.")
    if trainer.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path} has format_version {trainer.get('format_version')!r}; this release reads {FORMAT_VERSION}."
        )
    sizes, parts = {}, {}
    try:
        for file in map(Path, trainer["files"]):
            if not (path / file).is_file():
                raise FileNotFoundError(f"{path / file} is missing")
            if len(file.parts) == 1:
                parts[file.stem] = load_file(path / file)
            elif file.parts[0] not in sizes:
                sizes[file.parts[0]] = read_sharded_sizes(path / file.parts[0])
    except UserError as error:
        raise UserError(f"{error}; {remedy}.") from error
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path / file} cannot be read ({error}); {remedy}.") from error
    if trainer["frozen"]:
        if not (frozen := read_sharded_sizes(path.parent / FROZEN)):
            raise UserError(f"{path.parent / FROZEN} is missing, which holds the frozen weights of all checkpoints.")
        sizes[MODEL] = frozen | sizes.get(MODEL, {})
    return sizes, parts, trainer


def load_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Load the weights of a model in place; names and sizes must be those that `read_checkpoint` returned."""
    trained = read_sharded_sizes(path / MODEL)
    load_sharded(path / MODEL, {name: tensor for name, tensor in weights.items() if name in trained})
    load_sharded(path.parent / FROZEN, {name: tensor for name, tensor in weights.items() if name not in trained})
