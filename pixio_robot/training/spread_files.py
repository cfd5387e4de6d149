"""Tensors that may be spread over processes, as files: torch.distributed.checkpoint with safetensors inside.

Every process writes what it holds and reads what it needs, whatever the number of processes that wrote. PyTorch's own
file format unpickles when it opens a checkpoint; this one never does.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pixio_robot.errors import UserError
from pixio_robot.training.distributed import current

SUFFIX = ".safetensors"


def save_spread(directory: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write the tensors into a new directory; a collective, of the same names on every process."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    directory.mkdir(exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is one process
        writer = HuggingFaceStorageWriter(str(directory), save_distributed=True)
        save(_separate(tensors), storage_writer=writer, no_dist=current().count == 1)


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """safetensors refuses tensors that share memory, as tied weights do: the second of them becomes a copy."""
    from torch.distributed.tensor import DTensor

    seen: set[int] = set()
    separate = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        place = (tensor.to_local() if isinstance(tensor, DTensor) else tensor).data_ptr()
        separate[name] = tensor.clone() if place in seen else tensor
        if place:  # 0: there is nothing of it here
            seen.add(place)
    return separate


def load_spread(directory: Path, into: dict[str, Tensor]) -> None:
    """Fill the tensors in place with what `save_spread` wrote under their names; a collective."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    if not into:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load(into, storage_reader=HuggingFaceStorageReader(str(directory)), no_dist=current().count == 1)


def spread_sizes(directory: Path) -> dict[str, torch.Size]:
    """Name and whole size of every tensor there. Raises UserError naming a file that is damaged."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    for file in sorted(directory.glob(f"*{SUFFIX}")):
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file} cannot be read ({error})") from error
    if not directory.is_dir():
        return {}
    found = HuggingFaceStorageReader(str(directory)).read_metadata().state_dict_metadata
    return {name: metadata.size for name, metadata in found.items()}  # type: ignore[union-attr]
