"""The encoders inside a policy: names, learning rates, blocks."""

from __future__ import annotations

import contextlib
from typing import cast

from torch import nn

from pixio_robot.types import TrainablePolicy
from pixio_robot.vision.adapt import lr_scales


def named_encoders(policy: TrainablePolicy) -> list[tuple[str, nn.Module]]:
    """The encoders of a policy with their names among its modules."""
    names = {id(module): name for name, module in cast(nn.Module, policy).named_modules()}
    return [(names[id(encoder)], encoder) for encoder in policy.encoders]


def encoder_lr_scales(policy: TrainablePolicy, scale: float, layer_decay: float) -> dict[str, float]:
    """Learning rate of every encoder parameter relative to that of the policy."""
    return {
        f"{prefix}.{name}": scale * share
        for prefix, encoder in named_encoders(policy)
        for name, share in lr_scales(encoder, layer_decay).items()
    }


def transformer_blocks(encoder: nn.Module) -> list[nn.Module]:
    """The blocks of a Pixio encoder, which FSDP gathers one by one; other encoders are sharded as a whole."""
    with contextlib.suppress(AttributeError):
        return list(encoder.vit.blocks)  # pyright: ignore[reportCallIssue, reportArgumentType, reportAttributeAccessIssue]
    return []
