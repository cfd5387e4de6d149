"""Representations of rotations, and applying deltas to poses: the basis for converting actions.

Deltas are defined as in robosuite's operational space controller: both parts in the world frame, positions added and
rotations multiplied from the left, so deltas form the group R^3 x SO(3). All computations are in float64.
"""

from __future__ import annotations

import numpy as np

from pixio_robot.errors import UserError

AXIS_ANGLE, QUATERNION, QUATERNION_WXYZ = "axis_angle", "quat", "quat_wxyz"
ROT6D, ROT6D_ROWS, MATRIX = "rot6d", "rot6d_rows", "matrix"
ROTATION_SIZES = {AXIS_ANGLE: 3, QUATERNION: 4, QUATERNION_WXYZ: 4, ROT6D: 6, ROT6D_ROWS: 6, MATRIX: 9}
"""Number of values in each form.

axis_angle: in rad. quat: x, y, z, w as in robosuite and scipy. quat_wxyz: w, x, y, z as in MuJoCo. matrix: row by row.
axis_angle and quaternions have two values for each rotation: those of single rotations have a norm of at most pi and
w >= 0, those of a trajectory are continuous.
rot6d: the first two columns of the matrix, one after the other (Zhou et al. 2019), as in our environments' states.
rot6d_rows: its first two rows, as in pytorch3d and therefore in diffusion_policy and UMI.
"""
QUATERNIONS = (QUATERNION, QUATERNION_WXYZ)
TWO_VALUED = (AXIS_ANGLE, *QUATERNIONS)
"""Forms with two values for each rotation."""
_MIN_NORM = 1e-6
_HALF_TURN = 0.7 * np.pi
"""A trajectory that begins with a larger rotation than this (rad) counts as one around half a turn. Between the 120 and
135 degrees of grippers that are mounted askew or tilted, where noise would decide."""


def matrices_from_rotations(rotations: np.ndarray, form: str) -> np.ndarray:
    """Rotations (..., k) in `form` -> matrices (..., 3, 3). Six or nine values (from a network) are orthonormalised.

    Raises UserError for values that are not a rotation (a zero quaternion).
    """
    from scipy.spatial.transform import Rotation  # slow to import and not needed for reading settings

    if form == QUATERNION_WXYZ:
        return matrices_from_rotations(np.roll(rotations, -1, -1), QUATERNION)
    values = rotations.astype(np.float64)
    if form in (ROT6D, ROT6D_ROWS, MATRIX):
        if form == MATRIX:
            values = np.swapaxes(values.reshape(*values.shape[:-1], 3, 3), -1, -2)[..., :2, :]
        matrices = _orthonormalize(values.reshape(*values.shape[:-1], 2, 3) if form != MATRIX else values)
        return matrices if form == ROT6D_ROWS else np.swapaxes(matrices, -1, -2)
    flat = values.reshape(-1, ROTATION_SIZES[form])
    if form == QUATERNION:
        if len(flat) and np.linalg.norm(flat, axis=-1).min() < _MIN_NORM:
            raise UserError("A quaternion of length 0 is not a rotation.")
        rotation = Rotation.from_quat(flat)
    else:
        rotation = Rotation.from_rotvec(flat)
    return rotation.as_matrix().reshape(*values.shape[:-1], 3, 3)


def rotations_from_matrices(matrices: np.ndarray, form: str) -> np.ndarray:
    """Rotation matrices (..., 3, 3) -> (..., k) in `form`."""
    from scipy.spatial.transform import Rotation

    if form == QUATERNION_WXYZ:
        return np.roll(rotations_from_matrices(matrices, QUATERNION), 1, -1)
    shape = (*matrices.shape[:-2], ROTATION_SIZES[form])
    if form == ROT6D:
        return np.swapaxes(matrices, -1, -2)[..., :2, :].reshape(shape)
    if form == ROT6D_ROWS:
        return matrices[..., :2, :].reshape(shape)
    if form == MATRIX:
        return matrices.reshape(shape)
    rotation = Rotation.from_matrix(matrices.reshape(-1, 3, 3))
    return (rotation.as_quat(canonical=True) if form == QUATERNION else rotation.as_rotvec()).reshape(shape)


def rotations_from_trajectory(matrices_n33: np.ndarray, form: str) -> np.ndarray:
    """Rotation matrices of successive steps, (n, 3, 3) -> (n, k) in `form`, without jumps between the two values of a
    rotation.

    A gripper that points down is rotated by nearly half a turn, where the shorter rotation vector and the quaternion
    with w >= 0 flip with the slightest movement: a policy would learn their mean. Here each step takes the value that
    is nearer to the step before. The first has the shorter one, or, around half a turn, the one with its axis on the
    side of x + y >= 0, so that trajectories that begin at nearly the same pose agree.
    """
    from scipy.spatial.transform import Rotation

    if form == QUATERNION_WXYZ:
        return np.roll(rotations_from_trajectory(matrices_n33, QUATERNION), 1, -1)
    if form not in (AXIS_ANGLE, QUATERNION) or not len(matrices_n33):
        return rotations_from_matrices(matrices_n33, form)
    quats_n4 = Rotation.from_matrix(matrices_n33).as_quat()
    flips_n = np.where((quats_n4[1:] * quats_n4[:-1]).sum(-1) < 0, -1.0, 1.0).cumprod()
    quats_n4[1:] *= flips_n[:, None]
    x, y, _, w = quats_n4[0]
    if x + y < 0 if 2 * np.arccos(min(abs(w), 1.0)) > _HALF_TURN else w < 0:
        quats_n4 = -quats_n4
    if form == QUATERNION:
        return quats_n4
    axes_n3, w_n1 = quats_n4[:, :3], quats_n4[:, 3:]
    lengths_n1 = np.linalg.norm(axes_n3, axis=-1, keepdims=True)
    angles_n1 = 2 * np.arctan2(lengths_n1, w_n1)  # from 0 to a full turn
    return axes_n3 * np.divide(angles_n1, lengths_n1, out=np.full_like(w_n1, 2.0), where=lengths_n1 > 0)


def _orthonormalize(pairs: np.ndarray) -> np.ndarray:
    """(..., 2, 3) vectors -> (..., 3, 3) rows of a rotation, by Gram-Schmidt."""
    first, second = pairs[..., 0, :], pairs[..., 1, :]
    x = _normalize(first)
    y = _normalize(second - (x * second).sum(-1, keepdims=True) * x)
    return np.stack([x, y, np.cross(x, y)], -2)


def _normalize(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if lengths.size and lengths.min() < _MIN_NORM:
        raise UserError("Two vectors that are zero or parallel do not define a rotation.")
    return vectors / lengths


def apply_deltas(start: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """Apply deltas to `start`: both positions (n, 3), or both rotation matrices (n, 3, 3)."""
    return start + delta if start.ndim == 2 else delta @ start


def deltas_between(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The deltas from `start` to `end`: `apply_deltas(start, deltas_between(start, end))` equals `end`."""
    return end - start if start.ndim == 2 else end @ np.swapaxes(start, -1, -2)
