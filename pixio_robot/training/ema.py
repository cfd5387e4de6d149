"""Exponential moving average of the trained weights, used for evaluation and deployment."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

# As in diffusion policy (Chi et al., IJRR): the decay starts small, to forget early steps, and rises to its maximum.
# Updates are counted as in diffusers' EMAModel, one ahead of the authors' code.
INVERSE_GAMMA, POWER, LARGEST_DECAY = 1.0, 0.75, 0.9999


def decay_at(step: int) -> float:
    """Decay at update `step` (from 1); 0 at the first, which copies the weights."""
    if step <= 1:
        return 0.0
    return min(1 - (1 + (step - 1) / INVERSE_GAMMA) ** -POWER, LARGEST_DECAY)


class Ema:
    """Averages of the trainable parameters of `model`, in float32. Frozen parameters are left out.

    Running statistics are not averaged: the averaged weights are used with the model's latest statistics.
    """

    def __init__(self, model: nn.Module) -> None:
        self.step = 0
        """Updates so far. Saved, because a resumed run would otherwise overwrite the average at its first update."""
        self._live = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self._average = {name: value.detach().float().clone() for name, value in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        self.step += 1
        live = [value.detach().float() for value in self._live.values()]
        torch._foreach_lerp_(list(self._average.values()), live, 1 - decay_at(self.step))  # pyright: ignore

    @contextlib.contextmanager
    def average_parameters(self) -> Iterator[None]:
        """Context in which the model has the averaged weights."""
        kept = {name: value.detach().clone() for name, value in self._live.items()}
        self._copy_to_model(self._average)
        try:
            yield
        finally:
            self._copy_to_model(kept)

    @torch.no_grad()
    def _copy_to_model(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self._live.items():
            parameter.copy_(values[name])

    def tensors(self) -> dict[str, Tensor]:
        """The averages themselves; a checkpoint is loaded into them."""
        return dict(self._average)
