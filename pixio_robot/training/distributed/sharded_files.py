"""Store tensors that may be sharded over processes: torch.distributed.checkpoint with safetensors files.

Every process writes its shards and reads those it needs, whatever the number of processes that wrote them. PyTorch's
own file format unpickles when it opens a checkpoint; this one never does.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pixio_robot.errors import UserError
from pixio_robot.training.distributed.processes import current_processes

SUFFIX = ".safetensors"


def save_sharded(directory: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write the tensors to a new directory. A collective call, with the same names on every process."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    directory.mkdir(exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about running in a single process
        writer = HuggingFaceStorageWriter(str(directory), save_distributed=True)
        save(_clone_shared_tensors(tensors), storage_writer=writer, no_dist=current_processes().world_size == 1)


def _clone_shared_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors that share memory (tied weights), which safetensors rejects."""
    from torch.distributed.tensor import DTensor

    seen: set[int] = set()
    separate = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        address = (tensor.to_local() if isinstance(tensor, DTensor) else tensor).data_ptr()
        separate[name] = tensor.clone() if address in seen else tensor
        if address:  # 0: this process has no part of it
            seen.add(address)
    return separate


def load_sharded(directory: Path, into: dict[str, Tensor]) -> None:
    """Load what `save_sharded` wrote into the tensors, in place and by name. A collective call."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    if not into:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load(into, storage_reader=HuggingFaceStorageReader(str(directory)), no_dist=current_processes().world_size == 1)


def read_sharded_sizes(directory: Path) -> dict[str, torch.Size]:
    """Name and full size of every stored tensor. Raises UserError naming a damaged file."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    for file in sorted(directory.glob(f"*{SUFFIX}")):
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file} cannot be read ({error})") from error
    if not directory.is_dir():
        return {}
    stored = HuggingFaceStorageReader(str(directory)).read_metadata().state_dict_metadata
    return {name: metadata.size for name, metadata in stored.items()}  # type: ignore[union-attr]
