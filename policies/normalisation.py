"""Normalisation from physical to network units and back, per dimension, exactly invertible.

Some dimensions are recognised by name. The columns of a rotation matrix (6-d rotation, Zhou et al. 2019) and of a
quaternion are left unscaled, as in diffusion policy's release: they are in [-1, 1] already, and scaling each by its own
range would distort the rotation. A gripper that has only two values in the demonstrations is mapped back to exactly
those two.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pixio_robot.data.stats import Range
from pixio_robot.errors import UserError, unknown_name

NORMALISATIONS = ("min_max", "mean_std", "quantile", "none")
CONSTANT_RANGE = 1e-4
"""A dimension that varies by less than this (in its own unit) is treated as constant and only shifted: dividing by such
a small range would turn any jitter at run time into an enormous input (other toolkits use the same threshold)."""
ROTATION_NAMES = ("rot6d", "rot_6d", "rotation_6d", "6d_rotation", "quat", "eef_matrix")
GRIPPER_NAME = "gripper"
BINARY_SLACK = 0.01
"""A dimension is two-valued if its variance is within this fraction of the largest possible variance."""


class Normaliser(nn.Module):
    """network = (physical - offset) / scale, with one offset and one scale per dimension (last axis)."""

    offset: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor
    is_binary: Tensor

    def __init__(self, how: str, statistics: Range, names: Sequence[str] = (), min_std: float = 0.0):
        """`min_max` maps [minimum, maximum] to [-1, 1]; `mean_std` maps the mean to 0 and one standard deviation to 1;
        `quantile` maps the 1st and 99th percentiles to -1 and 1, which is robust to outliers; `none` is the identity.

        `names`: names of the dimensions, by which rotations and grippers are recognised. `min_std`: smaller standard
        deviations count as this one, in the dimension's unit.
        """
        super().__init__()
        if how not in NORMALISATIONS:
            raise unknown_name("normalisation", how, NORMALISATIONS)
        low, high, centre, spread = map(
            _to_tensor, (statistics.minimum, statistics.maximum, statistics.mean, statistics.std)
        )
        if not all(torch.isfinite(value).all() for value in (low, high, centre, spread)):
            raise UserError(
                "The demonstrations' statistics contain NaN or infinity and cannot be used for normalisation."
            )
        offset, scale = _offset_and_scale(how, low, high, centre, spread.clamp(min=min_std), statistics)
        is_rotation_dim = torch.tensor([is_rotation(name) for name in names] or [False] * len(low))
        gripper = torch.tensor([GRIPPER_NAME in name.lower() for name in names] or [False] * len(low))
        is_binary = gripper & _is_two_valued(low, high, centre, spread)
        # A gripper's two values are its natural units; its mean only says how often it was closed.
        offset = torch.where(is_binary & (how != "none"), (low + high) / 2, offset)
        scale = torch.where(is_binary & (how != "none"), (high - low) / 2, scale)
        offset = torch.where(is_rotation_dim, torch.zeros_like(offset), offset)
        scale = torch.where(is_rotation_dim | (high - low < CONSTANT_RANGE), torch.ones_like(scale), scale)
        self.how = how
        self.register_buffer("offset", offset.float())
        self.register_buffer("scale", scale.float())
        self.register_buffer("low", low.float())
        self.register_buffer("high", high.float())
        self.register_buffer("is_binary", is_binary, persistent=False)

    def forward(self, physical: Tensor) -> Tensor:
        """(..., d) in physical units -> (..., d) in network units."""
        return (physical - self.offset) / self.scale

    def inverse(self, network: Tensor) -> Tensor:
        return network * self.scale + self.offset

    def bounded_inverse(self, network: Tensor) -> Tensor:
        """The inverse, made executable: with `min_max`, clamped to the demonstrations' range; two-valued grippers are
        snapped to the nearer of their two values."""
        physical = self.inverse(network)
        if self.how == "min_max":
            physical = physical.clamp(self.low, self.high)
        nearer = torch.where(physical * 2 > self.low + self.high, self.high, self.low)
        return torch.where(self.is_binary, nearer, physical)


def is_rotation(name: str) -> bool:
    """Whether a dimension with that name belongs to a 6-d rotation or a quaternion."""
    return any(known in name.lower() for known in ROTATION_NAMES)


def _to_tensor(values: np.ndarray) -> Tensor:
    return torch.as_tensor(np.asarray(values, dtype=np.float64))


def _offset_and_scale(
    how: str, low: Tensor, high: Tensor, centre: Tensor, spread: Tensor, statistics: Range
) -> tuple[Tensor, Tensor]:
    match how:
        case "min_max":
            return (low + high) / 2, (high - low) / 2
        case "mean_std":
            return centre, spread
        case "quantile":
            low_percentile, high_percentile = _to_tensor(statistics.q01), _to_tensor(statistics.q99)
            # A dimension that hardly ever moves has equal percentiles: use its whole range instead.
            narrow = high_percentile - low_percentile < CONSTANT_RANGE
            low_percentile, high_percentile = (
                torch.where(narrow, low, low_percentile),
                torch.where(narrow, high, high_percentile),
            )
            return (low_percentile + high_percentile) / 2, (high_percentile - low_percentile) / 2
    return torch.zeros_like(low), torch.ones_like(low)


def _is_two_valued(low: Tensor, high: Tensor, centre: Tensor, spread: Tensor) -> Tensor:
    """Detect two-valued dimensions from four statistics: values in [low, high] have a variance of at most
    (high - mean)(mean - low), reached only if all are at one end or the other (Bhatia & Davis 2000)."""
    largest = (high - centre) * (centre - low)
    return (high - low >= CONSTANT_RANGE) & (spread**2 >= (1 - BINARY_SLACK) * largest)
