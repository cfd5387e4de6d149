"""Encoder adaptation: which parameters of a pretrained encoder are trained with a policy, and how fast."""

from __future__ import annotations

import dataclasses
import re
from typing import assert_never

from torch import nn

from pixio_robot.choice import Choice, chosen
from pixio_robot.fields import check_fields, number
from pixio_robot.vision.foreign import ForeignEncoder
from pixio_robot.vision.lora import insert_adapters

_BLOCK = re.compile(r"(?:^|\.)(?:blocks|layers?|stages|resblocks)[._]?(\d+)\.")


class Adaptation(Choice):
    FROZEN = "frozen"
    LAST_K = "last_k"
    LORA = "lora"
    """Low-rank adapters on every linear layer of the blocks; the weights themselves stay frozen."""
    FULL = "full"


@dataclasses.dataclass(kw_only=True)
class AdaptConfig:
    """Which part of the encoder is trained with the policy."""

    mode: Adaptation = Adaptation.FROZEN
    """FROZEN: nothing is trained. LAST_K: the last blocks. LORA: low-rank adapters on every linear layer of the blocks.
    FULL: everything."""
    last_k: int = number(2, at_least=1)
    """LAST_K: number of last blocks to train, together with the final norm."""
    layer_decay: float = number(1.0, above=0, at_most=1)
    """Layer-wise learning rate decay: ratio to the rate of the next deeper layer (BEiT, arXiv 2106.08254, and MAE use
    0.65 to 0.75)."""
    lora_rank: int = number(8, at_least=1)
    """LORA: rank of the adapters."""
    lora_alpha: float = number(16.0, above=0)
    """LORA: the adapters' output is scaled by lora_alpha / lora_rank."""
    lora_seed: int = 0
    """LORA: random seed of the adapters' initial weights."""

    def __post_init__(self) -> None:
        self.mode = chosen(Adaptation, self.mode, "adapt.mode")
        check_fields(self, "adapt.")


def parameter_depths(module: nn.Module) -> dict[str, int]:
    """Depth of each parameter: 0 before the blocks, i + 1 in block (or stage) i, and one more after the last block.

    Derived from the usual parameter names of vision models; a module without numbered blocks counts as one layer.
    """
    depths: dict[str, int] = {}
    deepest = 0
    for name, _ in module.named_parameters():
        if (match := _BLOCK.search(name)) is not None:
            depths[name] = int(match[1]) + 1
            deepest = max(deepest, depths[name])
        else:
            depths[name] = deepest + 1 if deepest else 0
    return depths


def adapt(encoder: nn.Module, config: AdaptConfig) -> None:
    """Set `requires_grad` of every parameter, and evaluation mode if FROZEN; insert the adapters if LORA.

    Parameters on which no feature depends are always frozen. Raises UserError if LORA and the encoder already has
    adapters.
    """
    _choose(encoder, config)
    if isinstance(encoder, ForeignEncoder):  # our own encoders have no unused parameters
        for parameter in encoder.unused():
            parameter.requires_grad_(False)


def _choose(encoder: nn.Module, config: AdaptConfig) -> None:
    depths = parameter_depths(encoder)
    match config.mode:
        case Adaptation.LORA:
            targets = [
                name
                for name, child in encoder.named_modules()
                if isinstance(child, nn.Linear) and _BLOCK.search(f"{name}.") is not None
            ]
            insert_adapters(encoder, targets, config.lora_rank, config.lora_alpha, config.lora_seed)
            return
        case Adaptation.FROZEN:
            first = max(depths.values(), default=0) + 1
        case Adaptation.FULL:
            first = 0
        case Adaptation.LAST_K:
            # What follows the last block (the final norm) is trained with it.
            deepest_block = max((depths[name] for name in depths if _BLOCK.search(name)), default=0)
            first = max(deepest_block - config.last_k + 1, 0)
        case _:
            assert_never(config.mode)
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(depths[name] >= first)
    if config.mode is Adaptation.FROZEN:
        encoder.eval()


def lr_scales(encoder: nn.Module, layer_decay: float) -> dict[str, float]:
    """Learning rate scale of every encoder parameter: layer_decay ** (number of layers between it and the output)."""
    depths = parameter_depths(encoder)
    deepest = max(depths.values(), default=0)
    return {name: layer_decay ** (deepest - depth) for name, depth in depths.items()}
