"""Save a policy whose parameters may be sharded over several processes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from pixio_robot.training.distributed.processes import current_processes
from pixio_robot.training.distributed.strategy import gather_full_state_dict

SaveModel = Callable[[Path, nn.Module], None]
"""Save this policy, which is on the CPU or the training device, to a directory that may already exist."""


def make_save(model: nn.Module, save_model: SaveModel) -> Callable[[Path], None]:
    """A function that saves the whole model; all processes must call it. Make it before the parameters are sharded over
    them: the first process loads the gathered weights into a copy that is not."""
    processes = current_processes()
    if processes.world_size == 1:
        return lambda directory: save_model(directory, model)
    template = _copy_on_meta_device(model) if processes.is_main else None

    def save(directory: Path) -> None:
        weights = gather_full_state_dict(model.state_dict())
        if template is not None:
            unsharded = copy.deepcopy(template)
            unsharded.load_state_dict(weights, assign=True)
            save_model(directory, unsharded)

    return save


def _copy_on_meta_device(model: nn.Module) -> nn.Module:
    """A copy on the CPU with parameters and persistent buffers on the meta device."""
    copies = {id(constant): constant.to("cpu", copy=True) for constant in model.buffers() if not constant.is_meta}
    for tensor in model.state_dict(keep_vars=True).values():
        nothing = torch.empty_like(tensor, device="meta")
        is_parameter = isinstance(tensor, nn.Parameter)
        copies[id(tensor)] = nn.Parameter(nothing, tensor.requires_grad) if is_parameter else nothing
    return copy.deepcopy(model, copies)
