"""Rotations that demonstrations write in both of their ways: as a quaternion and its negative, or as an axis-angle and
the one of the other way round. A policy would learn the mean of the two, which is another rotation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from pixio_robot.data.actions.pose_columns import PoseColumns
from pixio_robot.data.actions.rotations import AXIS_ANGLE

_NEAR = np.cos(np.radians(60) / 2)
"""Only rotations within 60 degrees of the usual one count: any two of them are nearer to each other with equal signs
than with opposite ones."""


def find_two_signs(rotations: Sequence[PoseColumns], actions: np.ndarray) -> Iterator[tuple[PoseColumns, float]]:
    """Those of the rotations, which have two values each, of which some steps have the rarer of two signs, and the
    share of these steps. actions (n, a): the columns that they are in."""
    for block in rotations:
        quats_n4 = _as_quaternions(actions[:, block.first : block.stop] * np.array(block.scale), block.form)
        # The axis along which they lie, whatever their signs.
        usual_4 = np.linalg.eigh(quats_n4.T @ quats_n4)[1][:, -1]
        along_n = quats_n4 @ usual_4
        near_n = along_n[np.abs(along_n) > _NEAR]
        positive = int((near_n > 0).sum())
        if rarer := min(positive, len(near_n) - positive):
            yield block, rarer / len(actions)


def _as_quaternions(values: np.ndarray, form: str) -> np.ndarray:
    """(n, k) -> (n, 4) with the sign that the values imply; the order of x, y, z and w does not matter here."""
    if form == AXIS_ANGLE:
        half_n1 = np.linalg.norm(values, axis=-1, keepdims=True) / 2
        return np.concatenate([values * np.sinc(half_n1 / np.pi) / 2, np.cos(half_n1)], -1)
    return values / np.linalg.norm(values, axis=-1, keepdims=True).clip(1e-12)
