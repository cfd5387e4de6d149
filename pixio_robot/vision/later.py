"""A Pixio encoder that a policy is built around before it has weights, for models that no process holds all of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import nn

from pixio_robot.vision.build import EncoderKind, EncoderSource, trained_pixio, untrained_pixio
from pixio_robot.vision.initial import Weights
from pixio_robot.vision.lora import of_adapter
from pixio_robot.vision.pixio import PixioEncoder


@dataclasses.dataclass(frozen=True)
class LaterEncoder:
    """encoder: its weights are zeros that take no room, from which shapes follow and beside which adapters can be put.
    weights: those that it should have."""

    encoder: PixioEncoder
    weights: Callable[[], Weights]


def encoder_for_later(source: EncoderSource) -> LaterEncoder | None:
    """The encoder of `build_encoder`, whose weights are given it later. None for kinds other than Pixio's, trained or
    not. Raises UserError as that does."""
    if source.kind is EncoderKind.PIXIO:
        trained = trained_pixio(source)
        later = LaterEncoder(PixioEncoder(trained.config, seed=None), trained.weights.items)
    elif source.kind is EncoderKind.RANDOM:
        config = untrained_pixio(source)
        later = LaterEncoder(
            PixioEncoder(config, seed=None), lambda: PixioEncoder(config, seed=None).fresh(source.seed)
        )
    else:
        return None
    zeros = {name: torch.zeros(()).expand(empty.shape) for name, empty in later.encoder.state_dict().items()}
    later.encoder.load_state_dict(zeros, assign=True)
    return later


def empty(encoder: nn.Module) -> None:
    """Leave the encoder of `encoder_for_later`, once a policy is built around it, without weights: on the meta device
    until it is filled. Adapters stay."""
    nothing = {
        name: tensor if of_adapter(name) else torch.empty(tensor.shape, device="meta")
        for name, tensor in encoder.state_dict().items()
    }
    encoder.load_state_dict(nothing, assign=True)
