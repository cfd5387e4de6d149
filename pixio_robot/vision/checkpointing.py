"""Vision checkpoints: directories with model.safetensors and config.json. Nothing in them is ever unpickled."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pixio_robot.errors import UserError
from pixio_robot.files import atomic_directory, read_json, write_json
from pixio_robot.vision.lora import merged_state_dict
from pixio_robot.vision.safetensors_file import save_tensors

FORMAT_VERSION = 1
WEIGHTS = "model.safetensors"
CONFIG = "config.json"
_FILES = (CONFIG, "model*.safetensors", "model.safetensors.index.json", "preprocessor_config.json")
"""What a directory of weights consists of, in our format or Hugging Face's."""


@contextlib.contextmanager
def atomic_checkpoint_directory(path: Path) -> Iterator[Path]:
    """`atomic_directory` for weights. Raises UserError if it would delete anything but weights."""
    check_replaceable(path)
    with atomic_directory(path) as temporary:
        yield temporary


def check_replaceable(path: Path) -> None:
    """Raise UserError unless there is nothing at `path`, or a directory of nothing but weights."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file, and weights are saved as a directory: choose another path.")
    inside = sorted(path.iterdir()) if path.is_dir() else []
    others = [each.name for each in inside if not (each.is_file() and any(each.match(file) for file in _FILES))]
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise UserError(
            f"{path} holds {others[0]}{more} besides weights, and saving replaces all of it: choose a new or empty "
            f"directory, such as {path / 'model'}."
        )


def save_checkpoint(directory: str | Path, kind: str, config: Mapping[str, Any], module: nn.Module) -> None:
    """Write a checkpoint with adapters merged, replacing an existing one; a crash leaves the old one or none. Raises
    UserError if there is anything else in `directory`."""
    with atomic_checkpoint_directory(Path(directory)) as temporary:
        save_tensors(
            {key: value.detach().cpu().contiguous() for key, value in merged_state_dict(module).items()},
            temporary / WEIGHTS,
        )
        write_json(temporary / CONFIG, {"kind": kind, "format_version": FORMAT_VERSION, **config})


def read_config(directory: str | Path, kinds: Collection[str]) -> dict[str, Any]:
    """Config of a checkpoint of one of `kinds`. Raises UserError for anything else."""
    path = Path(directory)
    if not path.is_dir():
        raise UserError(f"There is no checkpoint directory {path}.")
    if not (path / CONFIG).is_file():
        raise UserError(f"{path} is not a checkpoint: it contains no {CONFIG}.")
    config = read_json(path / CONFIG)
    kind = config.get("kind") if isinstance(config, dict) else None
    if kind not in kinds:
        raise UserError(f"{path / CONFIG} has kind {kind!r}; expected {' or '.join(kinds)}.")
    if config.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path} has format_version {config.get('format_version')!r}; this release reads {FORMAT_VERSION}."
        )
    return config


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, on the CPU, memory-mapped so that they load lazily. Raises UserError if the file
    is missing or damaged."""
    if not path.is_file():
        raise UserError(f"There is no weights file {path}.")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is not a readable safetensors file ({error}).") from error


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], where: str | Path) -> None:
    """Load the weights into the module. Raises UserError listing missing, unexpected and misshapen keys."""
    check_state_dict(tensor_shapes(module.state_dict()), tensor_shapes(weights), where)
    module.load_state_dict(dict(weights))


def tensor_shapes(weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in weights.items()}


def check_state_dict(expected: Mapping[str, torch.Size], given: Mapping[str, torch.Size], where: str | Path) -> None:
    """Raise UserError listing missing and unexpected keys and those of the wrong shape."""
    missing = sorted(expected.keys() - given.keys())
    unexpected = sorted(given.keys() - expected.keys())
    misshapen = [
        f"{key} {tuple(given[key])} instead of {tuple(expected[key])}"
        for key in sorted(expected.keys() & given.keys())
        if given[key] != expected[key]
    ]
    problems = [
        f"{name}: {', '.join(keys)}"
        for name, keys in (("missing", missing), ("unexpected", unexpected), ("wrong shape", misshapen))
        if keys
    ]
    if problems:
        raise UserError(f"The weights of {where} do not fit the model. {'; '.join(problems)}.")


def fingerprint(module: nn.Module, preprocessing: Mapping[str, Any]) -> str:
    """sha256 over all weights and the preprocessing; the same on every device and process."""
    digest = hashlib.sha256(json.dumps(dict(preprocessing), sort_keys=True).encode())
    for key, value in sorted(merged_state_dict(module).items()):
        digest.update(f"{key}:{value.dtype}:{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
