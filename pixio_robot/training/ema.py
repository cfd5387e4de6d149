"""A moving average of the trained weights, which is what gets evaluated and deployed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

# Diffusion policy (Chi et al., IJRR): the average forgets the early steps and settles at a long memory.
INVERSE_GAMMA, POWER, LARGEST_DECAY = 1.0, 0.75, 0.9999


def decay_at(step: int) -> float:
    """How much of the average survives update number `step` (from 1); 0 at the first: it copies the weights."""
    if step <= 1:
        return 0.0
    return min(1 - (1 + (step - 1) / INVERSE_GAMMA) ** -POWER, LARGEST_DECAY)


class Ema:
    """Averages of the trainable parameters of `model`, in float32. Frozen ones would only be stored twice.

    Running statistics are no parameters: the averages are evaluated, saved and deployed with the model's latest ones.
    """

    def __init__(self, model: nn.Module) -> None:
        self.step = 0
        """Updates so far. Without it a resumed run would begin by overwriting the average with the weights."""
        self._live = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self._average = {name: value.detach().float().clone() for name, value in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        self.step += 1
        live = [value.detach().float() for value in self._live.values()]
        torch._foreach_lerp_(list(self._average.values()), live, 1 - decay_at(self.step))  # pyright: ignore

    @contextlib.contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Inside, the model's weights are the averages."""
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
        """The averages themselves; a checkpoint is read into them."""
        return dict(self._average)
