"""Low-rank adapters (LoRA, arXiv 2106.09685) through peft, in place: the encoder stays of its class.

Training checkpoints hold the adapters. Vision and policy checkpoints hold merged weights (`merged_state`), so what was
trained with adapters opens like any other encoder, without peft.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pixio_robot.errors import UserError

ADAPTER = "default"
BASE = ".base_layer."
"""What adapters put into the names of the weights that they stand beside."""


def insert_adapters(encoder: nn.Module, targets: Sequence[str], rank: int, alpha: float, seed: int) -> None:
    """Put adapters on these linear layers (full names), which change nothing until trained. Only they are trainable.

    Raises UserError where there is no such layer, and where the encoder has adapters.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise UserError("adapt.mode=LORA needs peft: pip install 'pixio-robot[encoders]'.") from None
    if has_adapters(encoder):
        raise UserError(
            "adapt.mode=LORA: this encoder has adapters already, which go on learning as they are. For fresh ones "
            "save it, which merges them into its weights, and open what was saved."
        )
    if not targets:
        raise UserError(f"adapt.mode=LORA finds no linear layer in the blocks of a {type(encoder).__name__}.")
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets))  # pyright: ignore[reportArgumentType]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, encoder, ADAPTER)
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(of_adapter(name))


def has_adapters(module: nn.Module) -> bool:
    return any(of_adapter(name) for name, _ in module.named_parameters())


def merged_state(module: nn.Module) -> dict[str, Tensor]:
    """The state of a module as if no adapter had been inserted, what adapters learned added to the weights."""
    state = module.state_dict()
    if not has_adapters(module):
        return state
    with torch.no_grad():
        learned = {
            f"{name}.weight": child.get_delta_weight(ADAPTER)  # pyright: ignore[reportCallIssue]
            for name, child in module.named_modules()
            if hasattr(child, "get_delta_weight")
        }
    plain = without_adapters(state)
    return {key: value + learned[key] if key in learned else value for key, value in plain.items()}


def without_adapters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state under the names that it has without adapters, whose own part is left out."""
    return {key.replace(BASE, "."): value for key, value in state.items() if not of_adapter(key)}


def of_adapter(name: str) -> bool:
    """Whether a tensor of that name belongs to an adapter."""
    return ".lora_" in name
