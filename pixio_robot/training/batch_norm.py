"""Batch normalisation over the batches of all processes, so that many learn what one would."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pixio_robot.errors import UserError


def share_batch_norms(model: nn.Module, device: torch.device) -> None:
    """Let every BatchNorm of `model`, in training mode, measure the batches of all processes; does nothing to a model
    whose BatchNorms, if any, keep the statistics that they have.

    Raises UserError on a CPU, where PyTorch cannot.
    """
    measuring = [name for name, part in model.named_modules() if isinstance(part, _BatchNorm) and part.training]
    if not measuring:
        return
    if device.type != "cuda":
        raise UserError(
            f"{measuring[0]} is a BatchNorm and is trained, and on a CPU several processes cannot share its statistics:"
            " train in one process or on GPUs, or without it: policy.input_batch_norm=false where it is the policy's,"
            " a frozen encoder or one with GroupNorm, such as resnet18, where it is the encoder's."
        )
    try:
        from timm.layers.norm_act import convert_sync_batchnorm  # knows timm's own, which hold an activation
    except ImportError:
        convert_sync_batchnorm = nn.SyncBatchNorm.convert_sync_batchnorm
    convert_sync_batchnorm(model)  # in place below `model`
