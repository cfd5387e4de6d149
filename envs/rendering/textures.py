"""Random table textures: smooth noise, stripes, checks, wood and speckle."""

from __future__ import annotations

import numpy as np

TEXTURE_SIZE = 256


def _smooth_noise(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Smooth value noise (size, size) in [0, 1] with that many cells per side."""
    grid = rng.random((cells + 1, cells + 1))
    position = np.linspace(0, cells, TEXTURE_SIZE, endpoint=False)
    low = position.astype(int)
    part = position - low
    part = part * part * (3 - 2 * part)
    rows = grid[low] * (1 - part[:, None]) + grid[low + 1] * part[:, None]
    return rows[:, low] * (1 - part) + rows[:, low + 1] * part


def draw_texture(rng: np.random.Generator) -> np.ndarray:
    """A random texture: uint8 (256, 256, 3)."""
    y, x = np.mgrid[:TEXTURE_SIZE, :TEXTURE_SIZE] / TEXTURE_SIZE
    angle = rng.uniform(0, np.pi)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    scale = rng.uniform(4, 14)
    noise = _smooth_noise(rng, int(rng.integers(4, 24)))
    kind = rng.integers(5)
    if kind == 0:
        mix = noise
    elif kind == 1:
        mix = 0.5 + 0.5 * np.sin(2 * np.pi * scale * along)
    elif kind == 2:
        mix = ((np.floor(scale * along) + np.floor(scale * across)) % 2).astype(float)
    elif kind == 3:
        mix = 0.5 + 0.5 * np.sin(2 * np.pi * (2 * scale * across + 1.5 * noise))
    else:
        mix = (rng.random((TEXTURE_SIZE, TEXTURE_SIZE)) < 0.3) * 1.0
    first, second = rng.uniform(0.15, 0.95, (2, 3))
    # Limit the contrast: a table, not a test pattern.
    second = first + 0.45 * (second - first)
    grain = 0.06 * (_smooth_noise(rng, 64) - 0.5)
    color = first + mix[..., None] * (second - first) + grain[..., None]
    return np.clip(255 * color, 0, 255).astype(np.uint8)
