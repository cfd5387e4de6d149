"""Physical units to network units and back, per dimension, exactly invertible."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor, nn

from pixio_robot.data.stats import Statistics
from pixio_robot.errors import UserError, unknown_name

NORMALISATIONS = ("min_max", "mean_std")
CONSTANT_RANGE = 1e-4
"""A dimension that varies less than this (in its own unit) counts as constant: it is only shifted, because dividing
by so small a range would turn any jitter at run time into an enormous input (the peers' threshold is the same)."""


class Normaliser(nn.Module):
    """network = (physical - offset) / scale, with one offset and one scale per dimension (last axis)."""

    offset: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor

    def __init__(
        self,
        how: str,
        *,
        minimum: np.ndarray,
        maximum: np.ndarray,
        mean: np.ndarray,
        std: np.ndarray,
    ):
        """`min_max` sends [minimum, maximum] to [-1, 1]; `mean_std` sends the mean to 0 and one std to 1."""
        super().__init__()
        if how not in NORMALISATIONS:
            raise unknown_name("normalisation", how, NORMALISATIONS)
        low, high, centre, spread = (
            torch.as_tensor(np.asarray(value, dtype=np.float64)) for value in (minimum, maximum, mean, std)
        )
        if not all(torch.isfinite(value).all() for value in (low, high, centre, spread)):
            raise UserError(
                "The demonstrations' statistics hold NaN or infinity: `pixio-robot` cannot normalise by them."
            )
        if how == "min_max":
            offset, scale = (low + high) / 2, (high - low) / 2
        else:
            offset, scale = centre, spread
        scale = torch.where(high - low < CONSTANT_RANGE, torch.ones_like(scale), scale)
        self.how = how
        self.register_buffer("offset", offset.float())
        self.register_buffer("scale", scale.float())
        self.register_buffer("low", low.float())
        self.register_buffer("high", high.float())

    @classmethod
    def of_state(cls, how: str, statistics: Statistics) -> Normaliser:
        return cls(how, **dataclasses.asdict(statistics.state))

    @classmethod
    def of_actions(cls, how: str, statistics: Statistics) -> Normaliser:
        return cls(how, **dataclasses.asdict(statistics.actions))

    def forward(self, physical: Tensor) -> Tensor:
        return (physical - self.offset) / self.scale

    def inverse(self, network: Tensor) -> Tensor:
        return network * self.scale + self.offset

    def bounded_inverse(self, network: Tensor) -> Tensor:
        """The inverse, clamped to the range the demonstrations cover where the normalisation is by that range."""
        physical = self.inverse(network)
        return physical.clamp(self.low, self.high) if self.how == "min_max" else physical
