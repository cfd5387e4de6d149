"""How much of a pre-trained encoder is trained along with a policy, and how fast each layer of it."""

from __future__ import annotations

import dataclasses
import re
from typing import assert_never

from torch import nn

from pixio_robot.choice import Choice, chosen
from pixio_robot.errors import UserError
from pixio_robot.vision.foreign import ForeignEncoder
from pixio_robot.vision.lora import insert_adapters

_BLOCK = re.compile(r"(?:^|\.)(?:blocks|layers?|stages|resblocks)[._]?(\d+)\.")


class Adaptation(Choice):
    FROZEN = "frozen"
    LAST_K = "last_k"
    LORA = "lora"
    """Low-rank adapters beside every linear layer of the blocks; the weights themselves stay."""
    FULL = "full"


@dataclasses.dataclass(kw_only=True)
class AdaptConfig:
    """How much of the encoder is trained along with the policy."""

    mode: Adaptation = Adaptation.FROZEN
    """FROZEN: nothing. LAST_K: the last blocks. LORA: low-rank adapters beside every linear layer of the blocks. FULL:
    all of it."""
    last_k: int = 2
    """Blocks trained under `last_k`, counted from the output; the final norm goes with them."""
    layer_decay: float = 1.0
    """Learning rate of a layer over that of the next deeper one (arXiv 2106.08254 and MAE use 0.65 to 0.75)."""
    lora_rank: int = 8
    """Of the adapters under `lora`."""
    lora_alpha: float = 16.0
    """They count lora_alpha / lora_rank times."""
    lora_seed: int = 0
    """Of their initial weights."""

    def __post_init__(self) -> None:
        self.mode = chosen(Adaptation, self.mode, "adapt.mode")
        for name in ("last_k", "lora_rank"):
            if getattr(self, name) < 1:
                raise UserError(f"adapt.{name}={getattr(self, name)} must be at least 1.")
        if not 0.0 < self.layer_decay <= 1.0:
            raise UserError(f"adapt.layer_decay={self.layer_decay} must lie in (0, 1].")
        if self.lora_alpha <= 0.0:
            raise UserError(f"adapt.lora_alpha={self.lora_alpha} must be above 0.")


def parameter_depths(module: nn.Module) -> dict[str, int]:
    """How deep each parameter sits: 0 what comes before the blocks, i + 1 block (or stage) i, then what follows them.

    Read off the names that vision models use; a module without numbered blocks has one layer.
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
    """Set `requires_grad` of every parameter, and evaluation mode when frozen; under `lora` insert the adapters.

    What no feature depends on is frozen in any case. Raises UserError under `lora` for an encoder that has adapters.
    """
    _choose(encoder, config)
    if isinstance(encoder, ForeignEncoder):  # our own have nothing of the kind
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
            # What lies behind the last block (the final norm) is trained with it.
            deepest_block = max((depths[name] for name in depths if _BLOCK.search(name)), default=0)
            first = max(deepest_block - config.last_k + 1, 0)
        case _:
            assert_never(config.mode)
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(depths[name] >= first)
    if config.mode is Adaptation.FROZEN:
        encoder.eval()


def lr_scales(encoder: nn.Module, layer_decay: float) -> dict[str, float]:
    """For every parameter of the encoder, layer_decay ** (layers between it and the output)."""
    depths = parameter_depths(encoder)
    deepest = max(depths.values(), default=0)
    return {name: layer_decay ** (deepest - depth) for name, depth in depths.items()}
