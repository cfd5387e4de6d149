"""Sinusoidal position embeddings.

Shapes: p positions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


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
