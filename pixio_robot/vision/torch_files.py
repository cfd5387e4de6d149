"""Read tensors from PyTorch files without ever executing anything in them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixio_robot.errors import UserError, format_names
from pixio_robot.vision.checkpointing import read_weights


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a .safetensors file or a plain PyTorch state dict; nothing in it is executed. Raises UserError."""
    if path.suffix == ".safetensors":
        return read_weights(path)
    weights = _load(path)
    others = [f"{key} ({type(value).__name__})" for key, value in weights.items() if not isinstance(value, Tensor)]
    if others:
        raise UserError(f"{path} is not a plain state dict of tensors; it also has: {format_names(others)}.")
    return weights


def read_state_dicts(path: Path) -> dict[str, dict[str, Tensor]]:
    """Every state dict of a file, by its key: a training's checkpoint holds one beside other things (`model`,
    `state_dict`, `teacher`); that of a plain file has the key "". Nothing is executed. Raises UserError."""
    if path.suffix == ".safetensors":
        return {"": read_weights(path)}
    content = _load(path)
    found = {"": content} | {str(key): value for key, value in content.items() if isinstance(value, dict)}
    tensors = {
        key: {str(name): value for name, value in group.items() if isinstance(value, Tensor)}
        for key, group in found.items()
    }
    if not any(tensors.values()):
        raise UserError(f"{path} contains no state dict: {format_names([str(key) for key in content])}.")
    return {key: group for key, group in tensors.items() if group}


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"There is no weights file {path}.")
    try:
        # Memory-mapped if the file format (that of torch since 1.6) supports it.
        weights = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # the unpickler may raise anything for arbitrary bytes
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UserError(f"{path} is not a plain PyTorch state dict ({reason}).") from error
    if not isinstance(weights, dict):
        raise UserError(f"{path} contains a {type(weights).__name__}, not a plain state dict of tensors.")
    return weights
