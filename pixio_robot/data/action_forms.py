"""The same actions under other names: their rotations in another form, their deltas in another unit.

As diffusion_policy's runners do (`undo_transform_action`): a policy learns from six numbers a rotation, which a network
finds easier (Zhou et al. 2019), and a controller takes axis-angle.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from pixio_robot.data.pose_columns import Block, blocks, woven
from pixio_robot.errors import UserError


@dataclasses.dataclass(frozen=True)
class Restated:
    """pairs: positions and rotations in the order of their columns, each as it is and as it is to be."""

    pairs: Sequence[tuple[Block, Block]]

    def __call__(self, action: np.ndarray) -> np.ndarray:
        """action (a,) -> (a',), float64. Raises UserError for numbers that are no rotation."""
        found = [before for before, _ in self.pairs]
        parts = [
            list(action[before.first : before.stop] if before == after else _written(before, after, action))
            for before, after in self.pairs
        ]
        return np.array(woven(list(action), found, parts))

    def names(self, names: Sequence[str]) -> list[str]:
        """What the columns are called afterwards."""
        found = [before for before, _ in self.pairs]
        parts = [
            list(names[before.first : before.stop]) if before == after else after.names()
            for before, after in self.pairs
        ]
        return woven(list(names), found, parts)


def _written(before: Block, after: Block, action: np.ndarray) -> np.ndarray:
    try:
        return after.write(before.read(action[None]))[0]
    except UserError as error:
        raise UserError(f"The action's {before.described()} cannot be turned into {after.stem}: {error}") from error


def restated(names: Sequence[str], wanted: Sequence[str]) -> Restated | None:
    """How actions called `names` are said as `wanted`; None where that is not the same poses and otherwise the same
    columns: deltas are no places, and what has no unit is not scaled."""
    try:
        before, after = blocks(names), blocks(wanted)
    except UserError:
        # Names that begin like a pose's and are none mean what only their owner knows.
        return None
    if [_kind(block) for block in before] != [_kind(block) for block in after]:
        return None
    pairs = [
        (one, dataclasses.replace(other, first=one.first, arm=one.arm))
        for one, other in zip(before, after, strict=True)
    ]
    if any(one.delta and not _has_unit(names, one) for one, _ in pairs):
        return None
    # In their own words: eef_rot_axis_angle is UMI's for eef_axis_angle.
    way = Restated(
        [(one, one if (one.form, one.scale) == (other.form, other.scale) else other) for one, other in pairs]
    )
    return way if way.names(names) == list(wanted) else None


def _kind(block: Block) -> tuple[str, bool, bool]:
    return block.arm, block.delta, block.is_position


def _has_unit(names: Sequence[str], block: Block) -> bool:
    return all(name.endswith("]") for name in names[block.first : block.stop])
