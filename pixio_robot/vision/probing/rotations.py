"""Rotations as a linear map predicts them. Matrices (n, 3, 3); six numbers (n, 6)."""

from __future__ import annotations

import numpy as np


def rotation_to_6d(axes_n33: np.ndarray) -> np.ndarray:
    """The first two columns, float32 (n, 6): continuous in the rotation (Zhou et al. 2019, arXiv 1812.07035)."""
    return np.concatenate([axes_n33[:, :, 0], axes_n33[:, :, 1]], axis=1).astype(np.float32)


def rotation_from_6d(six_n6: np.ndarray) -> np.ndarray:
    """Inverse of `rotation_to_6d` for approximate values: orthonormalise the columns."""
    x = six_n6[:, :3] / np.linalg.norm(six_n6[:, :3], axis=1, keepdims=True)
    y = six_n6[:, 3:] - (six_n6[:, 3:] * x).sum(1, keepdims=True) * x
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    return np.stack([x, y, np.cross(x, y)], axis=2)


def rotation_angles(first_n33: np.ndarray, second_n33: np.ndarray) -> np.ndarray:
    """Angle (n,) between rotations [degrees]."""
    trace = np.einsum("nij,nij->n", first_n33, second_n33)
    return np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))


def rotation_varies(axes_n33: np.ndarray) -> bool:
    return bool(axes_n33.std(0).max() > 1e-3)
