"""Random numbers per row: a row's numbers depend only on its own seed, not on the rest of the batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pixio_robot.machine import pin_memory


class RowNoise:
    """Noise in which row i depends only on seeds[i] and on the previous draws.

    `like` (b, ...) determines the number of rows, the device and the dtype. With seeds=None, torch's global generator
    is used. Drawn on the CPU, so that a policy acts the same on every device. `scale`: standard deviation of `normal`.
    """

    def __init__(self, seeds: Sequence[int] | None, like: Tensor, scale: float = 1.0):
        self._like, self._scale = like, scale
        self._generators: list[torch.Generator | None] = (
            [None] * len(like) if seeds is None else [torch.Generator().manual_seed(seed) for seed in seeds]
        )

    def normal(self, *shape: int) -> Tensor:
        """Normal with mean 0, (b, *shape)."""
        drawn = torch.stack([torch.randn(shape, generator=row) for row in self._generators])
        return self._to_device(drawn if self._scale == 1 else self._scale * drawn)

    def uniform(self, *shape: int) -> Tensor:
        """In [0, 1), (b, *shape)."""
        return self._to_device(torch.stack([torch.rand(shape, generator=row) for row in self._generators]))

    def _to_device(self, drawn: Tensor) -> Tensor:
        # Does not wait for a GPU that is still encoding the images, so that the sampler's kernels are queued meanwhile.
        return pin_memory(drawn).to(self._like, non_blocking=True)
