"""Synchronise batch normalisation over processes, so that several train as one would."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pixio_robot.errors import UserError


def convert_sync_batch_norms(model: nn.Module, device: torch.device) -> None:
    """Convert every BatchNorm of `model` to compute its statistics over the batches of all processes. Does nothing if
    none of them is in training mode.

    Raises UserError on a CPU, where PyTorch does not support this.
    """
    active = [name for name, part in model.named_modules() if isinstance(part, _BatchNorm) and part.training]
    if not active:
        return
    if device.type != "cuda":
        raise UserError(
            f"{active[0]} is a BatchNorm in training mode, whose statistics several processes cannot share on a CPU."
            " Train in one process or on GPUs, or without BatchNorm: set policy.input_batch_norm=false if it belongs to"
            " the policy; if it belongs to the encoder, freeze it or use one with GroupNorm, such as resnet18."
        )
    try:
        from timm.layers.norm_act import convert_sync_batchnorm  # also handles timm's layers with a built-in activation
    except ImportError:
        convert_sync_batchnorm = nn.SyncBatchNorm.convert_sync_batchnorm
    convert_sync_batchnorm(model)  # in place below `model`
