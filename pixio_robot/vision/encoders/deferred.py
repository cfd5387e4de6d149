"""Build a policy around a Pixio encoder before loading its weights, for models too large for a single process."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import nn

from pixio_robot.vision.build import EncoderKind, EncoderSource, random_pixio_config, read_trained_pixio
from pixio_robot.vision.lora import is_adapter_weight
from pixio_robot.vision.pixio import PixioEncoder
from pixio_robot.vision.weight_init import Weights


@dataclasses.dataclass(frozen=True)
class DeferredEncoder:
    """encoder: has placeholder weights (expanded zeros that take no memory), so that shapes are known and adapters can
    be inserted. weights: returns the actual weights."""

    encoder: PixioEncoder
    weights: Callable[[], Weights]


def build_deferred_encoder(source: EncoderSource) -> DeferredEncoder | None:
    """As `build_encoder`, with the weights to be loaded later. None for kinds other than `pixio` and `random`.
    Raises UserError as `build_encoder` does."""
    if source.kind is EncoderKind.PIXIO:
        trained = read_trained_pixio(source)
        deferred = DeferredEncoder(PixioEncoder(trained.config, seed=None), trained.weights.items)
    elif source.kind is EncoderKind.RANDOM:
        config = random_pixio_config(source)
        deferred = DeferredEncoder(
            PixioEncoder(config, seed=None), lambda: PixioEncoder(config, seed=None).random_weights(source.seed)
        )
    else:
        return None
    zeros = {name: torch.zeros(()).expand(parameter.shape) for name, parameter in deferred.encoder.state_dict().items()}
    deferred.encoder.load_state_dict(zeros, assign=True)
    return deferred


def move_to_meta(encoder: nn.Module) -> None:
    """Move the weights of an encoder from `build_deferred_encoder` to the meta device once a policy has been built
    around it. Adapters stay."""
    meta_weights = {
        name: tensor if is_adapter_weight(name) else torch.empty(tensor.shape, device="meta")
        for name, tensor in encoder.state_dict().items()
    }
    encoder.load_state_dict(meta_weights, assign=True)
