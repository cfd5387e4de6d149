"""The first weights of a model that is made without any: fresh ones, drawn one tensor at a time, or those of a file.

So who keeps a part of every tensor (training/spreading.py) never holds more than one whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

Weights = Iterable[tuple[str, Tensor]]
"""All of a module's, under the names of its state."""

Mine = Callable[[Tensor, Tensor], Tensor]
"""What is kept of a whole tensor, given it and the place where it goes."""


def generator_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fresh_layers(module: nn.Module, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    """Of every linear layer below `module` Xavier-uniform weights and zero biases, of every LayerNorm 1 and 0
    (pixio.md, Init)."""
    for child in module.modules():
        if isinstance(child, nn.Linear):
            for parameter in child.parameters():
                # What PyTorch gives a layer as it makes it: seeds go on giving the weights that they gave from there.
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
    """The weights of a part under the names that they have in the whole."""
    return ((prefix + name, tensor) for name, tensor in weights)


def all_of_it(tensor: Tensor, place: Tensor) -> Tensor:
    return tensor


def fill(module: nn.Module, weights: Weights, device: torch.device | str = "cpu", mine: Mine = all_of_it) -> None:
    """Give what of a module was made on the meta device its weights, on `device`. The rest may be given others too,
    where it is."""
    # Room for everything first: between the tensors that come and go it would be scattered.
    here = module.state_dict()
    room = {name: torch.empty_like(it, device=device) for name, it in here.items() if it.is_meta}
    places, filled = here | room, set[str]()
    for name, tensor in weights:
        places[name].copy_(mine(tensor, places[name]))
        filled.add(name)
    assert room.keys() <= filled, "a module that is made without weights is given all"
    module.load_state_dict(room, strict=False, assign=True)
