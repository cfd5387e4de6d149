"""Low-rank adapters (LoRA, arXiv 2106.09685) through peft, inserted in place: the encoder keeps its class.

Training checkpoints contain the adapters. Vision and policy checkpoints contain merged weights (`merged_state_dict`),
so an encoder trained with adapters opens like any other, without peft.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pixio_robot.errors import UserError

ADAPTER = "default"
BASE = ".base_layer."
"""Added by peft to the names of weights that have an adapter."""


def insert_adapters(encoder: nn.Module, targets: Sequence[str], rank: int, alpha: float, seed: int) -> None:
    """Add adapters to the target linear layers (full names) and freeze the rest. They have no effect until trained.

    Raises UserError if there are no targets, or if the encoder already has adapters.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise UserError("adapt.mode=lora requires peft: pip install 'pixio-robot[encoders]'.") from None
    if has_adapters(encoder):
        raise UserError(
            "adapt.mode=lora: this encoder already has adapters. To continue training them, leave it as it is; for new "
            "ones, save the encoder, which merges them into its weights, and load it again."
        )
    if not targets:
        raise UserError(f"adapt.mode=lora: there is no linear layer in the blocks of a {type(encoder).__name__}.")
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets))  # pyright: ignore[reportArgumentType]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, encoder, ADAPTER)
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(is_adapter_weight(name))


def has_adapters(module: nn.Module) -> bool:
    return any(is_adapter_weight(name) for name, _ in module.named_parameters())


def merged_state_dict(module: nn.Module) -> dict[str, Tensor]:
    """State dict of a module with adapters merged into the weights, as if none had been inserted."""
    state = module.state_dict()
    if not has_adapters(module):
        return state
    with torch.no_grad():
        learned = {
            f"{name}.weight": child.get_delta_weight(ADAPTER)  # pyright: ignore[reportCallIssue]
            for name, child in module.named_modules()
            if hasattr(child, "get_delta_weight")
        }
    plain = strip_adapters(state)
    return {key: value + learned[key] if key in learned else value for key, value in plain.items()}


def strip_adapters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop adapters from a state dict and restore the original names of the other weights."""
    return {key.replace(BASE, "."): value for key, value in state.items() if not is_adapter_weight(key)}


def is_adapter_weight(name: str) -> bool:
    """Whether the tensor with this name belongs to an adapter."""
    return ".lora_" in name
