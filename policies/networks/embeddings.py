"""Sinusoidal embeddings of positions, and of the diffusion step.

Shapes: p positions, b batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def sinusoidal_embedding(positions: Tensor, dim: int) -> Tensor:
    """Embeddings (p, dim) of positions (p,), with geometric wavelengths up to 10000 (Vaswani et al. 2017)."""
    evens = torch.arange(0, dim, 2, device=positions.device)
    angles = positions[:, None] * torch.exp(-math.log(10_000.0) * evens / dim)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)[:, :dim]


def grid_embedding(rows: int, columns: int, dim: int) -> Tensor:
    """Embeddings of grid cells, (rows * columns, dim): one half encodes the row, the other the column."""
    half = dim // 2
    down = sinusoidal_embedding(torch.arange(rows).float(), dim - half)[:, None].expand(-1, columns, -1)
    right = sinusoidal_embedding(torch.arange(columns).float(), half)[None].expand(rows, -1, -1)
    return torch.cat([down, right], dim=-1).flatten(0, 1)


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
