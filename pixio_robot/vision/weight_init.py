"""Initial weights for a model built on the meta device: freshly drawn, one tensor at a time, or read from a file.

With sharding (training/distributed/strategy.py), a process therefore never holds more than one full tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

Weights = Iterable[tuple[str, Tensor]]
"""All weights of a module, under their names in its state dict."""

Mine = Callable[[Tensor, Tensor], Tensor]
"""Returns the part of a full tensor to keep, given the tensor and its destination."""


def generator_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fresh_layers(module: nn.Module, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    """Xavier-uniform weights and zero biases for all linear layers in `module`, 1 and 0 for all LayerNorms
    (pixio.md, Init)."""
    for child in module.modules():
        if isinstance(child, nn.Linear):
            for parameter in child.parameters():
                # PyTorch draws these numbers when building a layer; consume them, so that seeds keep giving the same
                # weights.
                torch.rand(parameter.shape, generator=generator, device="cpu")
    for name, child in module.named_modules():
        if isinstance(child, nn.Linear):
            yield f"{name}.weight", nn.init.xavier_uniform_(_like(child.weight), generator=generator)
            if child.bias is not None:
                yield f"{name}.bias", torch.zeros_like(child.bias, device="cpu")
        elif isinstance(child, nn.LayerNorm):
            yield f"{name}.weight", torch.ones_like(child.weight, device="cpu")
            yield f"{name}.bias", torch.zeros_like(child.bias, device="cpu")


def fresh_token(parameter: Tensor, generator: torch.Generator) -> Tensor:
    """For a class or mask token (pixio.md, Init)."""
    return nn.init.normal_(_like(parameter), std=0.02, generator=generator)


def fresh_positions(parameter: Tensor, generator: torch.Generator) -> Tensor:
    """For position embeddings (pixio.md, Init)."""
    return nn.init.trunc_normal_(_like(parameter), std=0.02, generator=generator)


def _like(parameter: Tensor) -> Tensor:
    return torch.empty(parameter.shape, device="cpu")


def under(prefix: str, weights: Weights) -> Iterator[tuple[str, Tensor]]:
    """Prefix the names of a submodule's weights."""
    return ((prefix + name, tensor) for name, tensor in weights)


def all_of_it(tensor: Tensor, place: Tensor) -> Tensor:
    return tensor


def fill(module: nn.Module, weights: Weights, device: torch.device | str = "cpu", mine: Mine = all_of_it) -> None:
    """Load weights into a module, allocating on `device` what is on the meta device. `weights` must cover all of that;
    other tensors are overwritten in place if they are given."""
    # Allocate everything first: interleaved with temporary tensors, the memory would be fragmented.
    here = module.state_dict()
    room = {name: torch.empty_like(it, device=device) for name, it in here.items() if it.is_meta}
    places, filled = here | room, set[str]()
    for name, tensor in weights:
        places[name].copy_(mine(tensor, places[name]))
        filled.add(name)
    assert room.keys() <= filled, "weights are missing for parts of the module on the meta device"
    module.load_state_dict(room, strict=False, assign=True)
