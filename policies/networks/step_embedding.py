"""Embedding of the diffusion step.

Shapes: b batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class SinusoidalStepEmbedding(nn.Module):
    """Sines and cosines of the diffusion step at geometric frequencies, (b, dim)."""

    frequencies: Tensor

    def __init__(self, dim: int):
        super().__init__()
        exponents = torch.arange(dim // 2) / max(dim // 2 - 1, 1)
        self.register_buffer("frequencies", torch.exp(-math.log(10_000.0) * exponents), persistent=False)

    def forward(self, steps_b: Tensor) -> Tensor:
        angles = steps_b[:, None].float() * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class StepEmbeddingMLP(nn.Module):
    """The same through a two-layer network."""

    def __init__(self, dim: int):
        super().__init__()
        self.sinusoids = SinusoidalStepEmbedding(dim)
        self.network = nn.Sequential(nn.Linear(dim, 4 * dim), nn.Mish(), nn.Linear(4 * dim, dim))

    def forward(self, steps_b: Tensor) -> Tensor:
        return self.network(self.sinusoids(steps_b))
