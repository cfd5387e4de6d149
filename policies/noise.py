"""Random numbers by row: what one row draws depends on its own seed, whatever else is in the batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class RowNoise:
    """Noise whose row i depends on seeds[i] and on what was drawn before, on nothing else; `like` (b, ...) says how
    many rows, on which device and in which precision. Seeds None draw from torch's global generator.

    Drawn on the CPU, so that a policy does the same on every device.
    """

    def __init__(self, seeds: Sequence[int] | None, like: Tensor):
        self._like = like
        self._generators: list[torch.Generator | None] = (
            [None] * len(like) if seeds is None else [torch.Generator().manual_seed(seed) for seed in seeds]
        )

    def normal(self, *shape: int) -> Tensor:
        """Standard normal, (b, *shape)."""
        return torch.stack([torch.randn(shape, generator=row) for row in self._generators]).to(self._like)

    def uniform(self, *shape: int) -> Tensor:
        """In [0, 1), (b, *shape)."""
        return torch.stack([torch.rand(shape, generator=row) for row in self._generators]).to(self._like)
