"""Standardisation of features per position and channel, which brings out the differences between frames.

Frozen features have a large mean that depends on the position; the change caused by a small moving object is faint
until that mean is subtracted.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

VARIANCE_RIDGE = 1.0
"""Fraction of a channel's mean variance that is added to its variance at every position, so that positions where almost
nothing changed in the demonstrations are not amplified to the level of the others: there, another light would be far
outside of what the policy has seen (docs/results.md)."""


class Standardiser(nn.Module):
    """(x - mean) / spread, element by element; the identity until `fit` has been called."""

    mean: Tensor
    inverse_spread: Tensor

    def __init__(self, shape: tuple[int, ...]):
        """`shape`: shape of one sample, channels last."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("inverse_spread", torch.ones(shape))

    def fit(self, moments: RunningMoments) -> None:
        mean, variance = moments.mean_and_variance()
        channel_variance = variance.flatten(0, -2).mean(0)
        # Avoids division by zero for channels that never change; features are of order one.
        floor = 1e-4 * channel_variance.mean() + 1e-6
        spread = (variance + VARIANCE_RIDGE * channel_variance + floor).sqrt()
        self.mean.copy_(mean)
        self.inverse_spread.copy_(1 / spread)

    def forward(self, x: Tensor) -> Tensor:
        # One pass and one allocation less than subtracting and then multiplying: on a CPU this is memory-bound
        # (256 maps of 12x12x192 on one thread: 7.4 ms instead of 11.8 ms, medians).
        return torch.addcmul(-self.mean * self.inverse_spread, x.float(), self.inverse_spread)


class RunningMoments:
    """Streaming mean and variance of samples (n, *shape), in double precision."""

    def __init__(self, shape: tuple[int, ...]):
        self.count = 0
        self._mean = torch.zeros(shape, dtype=torch.float64)
        self._squares = torch.zeros(shape, dtype=torch.float64)

    def add(self, x: Tensor) -> None:
        x = x.detach().cpu().double()
        # Chan et al. (1979): merging deviations avoids the cancellation of a sum of squares.
        mean = x.mean(0)
        shift = mean - self._mean
        total = self.count + len(x)
        self._squares += ((x - mean) ** 2).sum(0) + shift**2 * (self.count * len(x) / total)
        self._mean += shift * (len(x) / total)
        self.count = total

    def mean_and_variance(self) -> tuple[Tensor, Tensor]:
        return self._mean, self._squares / self.count
