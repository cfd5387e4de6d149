"""Build a policy around a Pixio encoder before loading its weights, for models too large for a single process."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import nn

from pixio_robot.vision.build import EncoderKind, EncoderSource, trained_pixio, untrained_pixio
from pixio_robot.vision.lora import of_adapter
from pixio_robot.vision.pixio import PixioEncoder
from pixio_robot.vision.weight_init import Weights


@dataclasses.dataclass(frozen=True)
class LaterEncoder:
    """encoder: has placeholder weights (expanded zeros that take no memory), so that shapes are known and adapters can
    be inserted. weights: returns the actual weights."""

    encoder: PixioEncoder
    weights: Callable[[], Weights]


def encoder_for_later(source: EncoderSource) -> LaterEncoder | None:
    """As `build_encoder`, with the weights to be loaded later. None for kinds other than `pixio` and `random`. Raises
    UserError as `build_encoder` does."""
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
    """Move the weights of an encoder from `encoder_for_later` to the meta device once a policy has been built around
    it. Adapters stay."""
    nothing = {
        name: tensor if of_adapter(name) else torch.empty(tensor.shape, device="meta")
        for name, tensor in encoder.state_dict().items()
    }
    encoder.load_state_dict(nothing, assign=True)
