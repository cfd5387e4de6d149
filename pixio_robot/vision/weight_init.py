"""Initial weights for a model built on the meta device: freshly drawn, one tensor at a time, or read from a file.

With sharding (training/distributed/strategy.py), a process therefore never holds more than one full tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

Weights = Iterable[tuple[str, Tensor]]
"""All weights of a module, under their names in its state dict."""

SelectShard = Callable[[Tensor, Tensor], Tensor]
"""Returns the shard of a full tensor that this process keeps, given the tensor and its destination."""


def make_generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_layer_weights(module: nn.Module, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    """Xavier-uniform weights and zero biases for all linear layers in `module`, 1 and 0 for all LayerNorms,
    as in Pixio (arXiv 2512.15715)."""
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


def random_token(parameter: Tensor, generator: torch.Generator) -> Tensor:
    """For a class or mask token: normal with standard deviation 0.02, as in Pixio."""
    return nn.init.normal_(_like(parameter), std=0.02, generator=generator)


def random_position_embeddings(parameter: Tensor, generator: torch.Generator) -> Tensor:
    """For position embeddings: truncated normal with standard deviation 0.02, as in Pixio."""
    return nn.init.trunc_normal_(_like(parameter), std=0.02, generator=generator)


def _like(parameter: Tensor) -> Tensor:
    return torch.empty(parameter.shape, device="cpu")


def add_prefix(prefix: str, weights: Weights) -> Iterator[tuple[str, Tensor]]:
    """Prefix the names of a submodule's weights."""
    return ((prefix + name, tensor) for name, tensor in weights)


def keep_full_tensor(tensor: Tensor, target: Tensor) -> Tensor:
    """The `SelectShard` of a model that is not sharded."""
    return tensor


def materialise(
    module: nn.Module, weights: Weights, device: torch.device | str = "cpu", select: SelectShard = keep_full_tensor
) -> None:
    """Load weights into a module, allocating on `device` what is on the meta device. `weights` must cover all of that;
    other tensors are overwritten in place if they are given."""
    # Allocate everything first: interleaved with temporary tensors, the memory would be fragmented.
    state = module.state_dict()
    allocated = {name: torch.empty_like(value, device=device) for name, value in state.items() if value.is_meta}
    targets, filled = state | allocated, set[str]()
    for name, tensor in weights:
        targets[name].copy_(select(tensor, targets[name]))
        filled.add(name)
    assert allocated.keys() <= filled, "weights are missing for parts of the module on the meta device"
    module.load_state_dict(allocated, strict=False, assign=True)
