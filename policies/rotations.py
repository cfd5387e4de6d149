"""The forms of rotations of `pixio_robot.data.actions.rotations` as batched tensors in float32, for use in a policy.

Nothing waits for a value: what is no rotation (a network's output) becomes the nearest one or, if it is 0, some one.
Products are sums of element-wise products, since autocast and TensorFloat-32 would round the factors of `@`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from pixio_robot.data.actions.pose_columns import find_rotations
from pixio_robot.data.actions.rotations import (
    AXIS_ANGLE,
    MATRIX,
    QUATERNION,
    QUATERNION_WXYZ,
    QUATERNIONS,
    ROT6D,
    ROT6D_ROWS,
    TWO_VALUED,
)
from pixio_robot.data.stats import Range

_TINY = 1e-12
_UNIT_TOLERANCE = 0.05
"""Of the mean squared length of quaternions: those that were filtered or interpolated are a little shorter than 1."""
_DIAGONALS = ((1, -1, -1), (-1, 1, -1), (-1, -1, 1), (1, 1, 1))
"""Signs of the matrix's diagonal in 4x^2, 4y^2, 4z^2, 4w^2 of its quaternion; 1 is added to each."""


def to_matrices(values: Tensor, form: str) -> Tensor:
    """Rotations (..., k) in `form` -> matrices (..., 3, 3)."""
    if form == AXIS_ANGLE:
        half = values.norm(dim=-1, keepdim=True) / 2
        return _matrices_from_quaternions(torch.cat([values * torch.sinc(half / torch.pi) / 2, half.cos()], dim=-1))
    if form == QUATERNION_WXYZ:
        values = values.roll(-1, -1)
    if form in QUATERNIONS:
        return _matrices_from_quaternions(functional.normalize(values, dim=-1))
    pairs = (
        values.unflatten(-1, (3, 3)).transpose(-1, -2)[..., :2, :] if form == MATRIX else values.unflatten(-1, (2, 3))
    )
    # Gram-Schmidt, as for rotations from a network (Zhou et al. 2019).
    x = functional.normalize(pairs[..., 0, :], dim=-1)
    y = pairs[..., 1, :]
    y = functional.normalize(y - (x * y).sum(-1, keepdim=True) * x, dim=-1)
    matrices = torch.stack([x, y, torch.linalg.cross(x, y)], dim=-2)
    return matrices if form == ROT6D_ROWS else matrices.transpose(-1, -2)


def from_matrices(matrices: Tensor, form: str) -> Tensor:
    """Rotation matrices (..., 3, 3) -> (..., k) in `form`: quaternions with w >= 0, angles of at most pi."""
    if form == ROT6D:
        return matrices.transpose(-1, -2)[..., :2, :].flatten(-2)
    if form == ROT6D_ROWS:
        return matrices[..., :2, :].flatten(-2)
    if form == MATRIX:
        return matrices.flatten(-2)
    quaternions = _quaternions_from_matrices(matrices)
    if form in QUATERNIONS:
        return quaternions if form == QUATERNION else quaternions.roll(1, -1)
    axes, w = quaternions[..., :3], quaternions[..., 3:]
    sine = axes.norm(dim=-1, keepdim=True)
    return axes * (2 * torch.atan2(sine, w) / sine.clamp(min=_TINY))


def multiply_matrices(first: Tensor, second: Tensor) -> Tensor:
    """Matrices (..., 3, 3) times matrices (..., 3, 3)."""
    return (first[..., :, :, None] * second[..., None, :, :]).sum(-2)


def rotate_vectors(turn: Tensor, vectors: Tensor) -> Tensor:
    """Matrices (..., 3, 3) times vectors (..., 3)."""
    return (turn * vectors[..., None, :]).sum(-1)


def nearest_representation(values: Tensor, form: str, reference: Sequence[float]) -> Tensor:
    """Of the two ways to write a rotation as a quaternion, or as an axis and an angle of up to a full turn, the one
    nearer to `reference` (k,). Rotations in other forms, which can be written in one way only, stay as they are."""
    if form not in TWO_VALUED:
        return values
    along = scale_columns(values, reference).sum(-1, keepdim=True)
    if form in QUATERNIONS:
        return torch.where(along < 0, -values, values)
    angle = values.norm(dim=-1, keepdim=True).clamp(min=_TINY)
    return torch.where(along / angle < angle - torch.pi, values - 2 * torch.pi * values / angle, values)


def find_quaternions(names: Sequence[str], of: Range) -> list[slice]:
    """Where quaternions are among columns with these names: where they also had length 1 in the demonstrations.
    Differences of quaternions, which some record, are not rotations."""
    slices = [slice(block.first, block.stop) for block in find_rotations(names, QUATERNIONS)]
    mean_squares = of.mean**2 + of.std**2
    return [columns for columns in slices if abs(mean_squares[columns].sum() - 1) < _UNIT_TOLERANCE]


def normalize_columns(columns: Tensor, vectors: Sequence[slice]) -> Tensor:
    """columns (..., c) with each of `vectors` divided by its length."""
    columns = columns.clone() if vectors else columns
    for vector in vectors:
        columns[..., vector] = functional.normalize(columns[..., vector], dim=-1)
    return columns


def scale_columns(columns: Tensor, factors: Sequence[float]) -> Tensor:
    """Each column (..., k) times its factor; as a tensor, the factors (k) would have to be copied to the device."""
    return torch.stack([column * factor for column, factor in zip(columns.unbind(-1), factors, strict=True)], -1)


def _matrices_from_quaternions(quaternions: Tensor) -> Tensor:
    """Unit quaternions (..., 4), x y z w -> (..., 3, 3)."""
    x, y, z, w = quaternions.unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def _quaternions_from_matrices(matrices: Tensor) -> Tensor:
    """The inverse of `_matrices_from_quaternions`, with w >= 0: the products 4 q q^T follow from the matrix without
    divisions, and the row of the largest of x, y, z and w is q times a factor that is far from 0."""
    m = [row.unbind(-1) for row in matrices.unbind(-2)]
    x, y, z, w = (1 + a * m[0][0] + b * m[1][1] + c * m[2][2] for a, b, c in _DIAGONALS)
    xy, xz, yz = m[0][1] + m[1][0], m[0][2] + m[2][0], m[1][2] + m[2][1]
    xw, yw, zw = m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]
    rows = [[x, xy, xz, xw], [xy, y, yz, yw], [xz, yz, z, zw], [xw, yw, zw, w]]
    products = torch.stack([torch.stack(row, -1) for row in rows], -2)
    largest = torch.stack([x, y, z, w], -1).argmax(-1)[..., None, None].expand(*x.shape, 1, 4)
    quaternions = functional.normalize(products.gather(-2, largest).squeeze(-2), dim=-1)
    return torch.where(quaternions[..., 3:] < 0, -quaternions, quaternions)
