"""Restating the same actions with rotations in another form or deltas in another unit.

Like `undo_transform_action` of diffusion_policy's runners: a policy learns rotations as six numbers, which are easier
for a network (Zhou et al. 2019), while the controller takes axis-angle.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from pixio_robot.data.actions.pose_columns import PoseColumns, find_pose_columns, replace_columns
from pixio_robot.errors import UserError


@dataclasses.dataclass(frozen=True)
class ActionConverter:
    """`pairs`: the positions and rotations in column order, each before and after the conversion."""

    pairs: Sequence[tuple[PoseColumns, PoseColumns]]

    def __call__(self, action: np.ndarray) -> np.ndarray:
        """action (a,) -> (a',), float64. Raises UserError for values that are not a rotation."""
        blocks = [before for before, _ in self.pairs]
        parts = [
            list(action[before.first : before.stop] if before == after else _convert_columns(before, after, action))
            for before, after in self.pairs
        ]
        return np.array(replace_columns(list(action), blocks, parts))

    def names(self, names: Sequence[str]) -> list[str]:
        """The names of the columns after the conversion."""
        blocks = [before for before, _ in self.pairs]
        parts = [
            list(names[before.first : before.stop]) if before == after else after.names()
            for before, after in self.pairs
        ]
        return replace_columns(list(names), blocks, parts)


def _convert_columns(before: PoseColumns, after: PoseColumns, action: np.ndarray) -> np.ndarray:
    try:
        return after.write(before.read(action[None]))[0]
    except UserError as error:
        raise UserError(f"The action's {before.described()} cannot be converted to {after.stem}: {error}") from error


def make_action_converter(names: Sequence[str], wanted: Sequence[str]) -> ActionConverter | None:
    """The conversion of actions named `names` to `wanted`; None unless both describe the same poses and the other
    columns are equal. Deltas are not converted to absolute poses, and values without a unit are not scaled."""
    try:
        before, after = find_pose_columns(names), find_pose_columns(wanted)
    except UserError:
        # Names that resemble a pose but are not one: only their author knows what they mean.
        return None
    if [_kind(block) for block in before] != [_kind(block) for block in after]:
        return None
    pairs = [
        (one, dataclasses.replace(other, first=one.first, arm=one.arm))
        for one, other in zip(before, after, strict=True)
    ]
    if any(one.delta and not _has_unit(names, one) for one, _ in pairs):
        return None
    # Equal blocks keep their own names: eef_rot_axis_angle is UMI's name for eef_axis_angle.
    way = ActionConverter(
        [(one, one if (one.form, one.scale) == (other.form, other.scale) else other) for one, other in pairs]
    )
    return way if way.names(names) == list(wanted) else None


def _kind(block: PoseColumns) -> tuple[str, bool, bool]:
    return block.arm, block.delta, block.is_position


def _has_unit(names: Sequence[str], block: PoseColumns) -> bool:
    return all(name.endswith("]") for name in names[block.first : block.stop])
