"""Encoder adaptation: which parameters of a pretrained encoder are trained with a policy, and how fast."""

from __future__ import annotations

import dataclasses
import re
from typing import assert_never

from torch import nn

from pixio_robot.choice import Choice
from pixio_robot.errors import UserError, format_names
from pixio_robot.fields import check_fields, number
from pixio_robot.vision.encoders.foreign import ForeignEncoder
from pixio_robot.vision.encoders.plugin_encoder import InstalledEncoder
from pixio_robot.vision.lora import insert_adapters, is_adapter_weight

_BLOCK_PATTERN = re.compile(r"(?:^|\.)(?:blocks|layers?|stages|resblocks)[._]?(\d+)\.")


_NO_BLOCKS = "the parameters of this encoder are not named by numbered blocks, layers or stages"


class Adaptation(Choice):
    """frozen: nothing is trained. last_k: the last blocks. lora: low-rank adapters on every linear layer of the blocks,
    whose weights themselves stay frozen. full: everything."""

    FROZEN = "frozen"
    LAST_K = "last_k"
    LORA = "lora"
    FULL = "full"


@dataclasses.dataclass(kw_only=True)
class AdaptConfig:
    """Which part of the encoder is trained with the policy."""

    mode: Adaptation = Adaptation.FROZEN
    last_k: int = number(2, at_least=1)
    """last_k: number of last blocks to train, together with the final norm."""
    layer_decay: float = number(1.0, above=0, at_most=1)
    """Layer-wise learning rate decay: ratio to the rate of the next deeper layer (BEiT, arXiv 2106.08254, and MAE use
    0.65 to 0.75)."""
    lora_rank: int = number(8, at_least=1)
    """lora: rank of the adapters."""
    lora_alpha: float = number(16.0, above=0)
    """lora: the adapters' output is scaled by lora_alpha / lora_rank."""
    lora_seed: int = 0
    """lora: random seed of the adapters' initial weights."""

    def __post_init__(self) -> None:
        check_fields(self, "adapt.")


def parameter_depths(module: nn.Module) -> dict[str, int]:
    """Depth of each parameter: 0 before the blocks, i + 1 in block (or stage) i, and one more after the last block.

    Derived from the usual parameter names of vision models; a module without numbered blocks counts as one layer.
    """
    blocks = {name: _BLOCK_PATTERN.search(name) for name, _ in module.named_parameters()}
    numbers = sorted({int(match[1]) for match in blocks.values() if match})  # those of ResNets begin with 1
    depths: dict[str, int] = {}
    deepest = 0
    for name, match in blocks.items():
        depths[name] = numbers.index(int(match[1])) + 1 if match else deepest + 1 if deepest else 0
        deepest = max(deepest, depths[name] if match else 0)
    return depths


def adapt(encoder: nn.Module, config: AdaptConfig) -> None:
    """Set `requires_grad` of every parameter, and evaluation mode if FROZEN; insert the adapters if LORA.

    Parameters on which no feature depends are always frozen. Raises UserError if LAST_K and the encoder has no numbered
    blocks, if LORA and the encoder already has adapters, and if adapters would have no effect.
    """
    _set_trainable(encoder, config)
    if isinstance(encoder, ForeignEncoder | InstalledEncoder):  # our own encoders have no unused parameters
        unused = encoder.unused_parameters()
        if config.mode is Adaptation.LORA:
            _check_adapters_used(encoder, {id(parameter) for parameter in unused})
        for parameter in unused:
            parameter.requires_grad_(False)


def _check_adapters_used(encoder: ForeignEncoder | InstalledEncoder, unused: set[int]) -> None:
    """Some models, such as timm's BEiT and EVA-02, take a layer's weight and multiply by it themselves, past the
    adapter."""
    idle = {
        name: layer.get_parameter("base_layer.weight")
        for name, layer in encoder.named_modules()
        if hasattr(layer, "base_layer")
        and all(id(p) in unused for n, p in layer.named_parameters() if is_adapter_weight(f".{n}"))
    }
    if not idle:
        return
    for weight in idle.values():
        weight.requires_grad_(True)
    never_used = {id(parameter) for parameter in encoder.unused_parameters()}
    bypassed = [name for name, weight in idle.items() if id(weight) not in never_used]
    for weight in idle.values():
        weight.requires_grad_(False)
    if bypassed:
        raise UserError(
            f"adapt.mode=lora: this encoder reads the weights of {format_names(bypassed)} past their layers, so that "
            "adapters there would have no effect. Use last_k or full, or another encoder."
        )


def _set_trainable(encoder: nn.Module, config: AdaptConfig) -> None:
    depths = parameter_depths(encoder)
    match config.mode:
        case Adaptation.LORA:
            targets = [
                name
                for name, child in encoder.named_modules()
                if isinstance(child, nn.Linear) and _BLOCK_PATTERN.search(f"{name}.") is not None
            ]
            insert_adapters(encoder, targets, config.lora_rank, config.lora_alpha, config.lora_seed)
            return
        case Adaptation.FROZEN:
            first = max(depths.values(), default=0) + 1
        case Adaptation.FULL:
            first = 0
        case Adaptation.LAST_K:
            # What follows the last block (the final norm) is trained with it.
            deepest_block = max((depths[name] for name in depths if _BLOCK_PATTERN.search(name)), default=0)
            if deepest_block == 0:
                raise UserError(f"adapt.mode=last_k: {_NO_BLOCKS}. Use frozen or full.")
            first = max(deepest_block - config.last_k + 1, 0)
        case _:
            assert_never(config.mode)
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(depths[name] >= first)
    if config.mode is Adaptation.FROZEN:
        encoder.eval()


def lr_scales(encoder: nn.Module, layer_decay: float) -> dict[str, float]:
    """Learning rate scale of every encoder parameter: layer_decay ** (number of layers between it and the output).

    Raises UserError for a decay (below 1) in an encoder without numbered blocks.
    """
    depths = parameter_depths(encoder)
    deepest = max(depths.values(), default=0)
    if layer_decay < 1 and deepest == 0:
        raise UserError(f"adapt.layer_decay={layer_decay}: {_NO_BLOCKS}. Leave it at 1.")
    return {name: layer_decay ** (deepest - depth) for name, depth in depths.items()}
