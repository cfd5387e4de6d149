"""Poses relative to the gripper's pose at the newest frame, the relative trajectories of UMI (Chi et al., RSS 2024).

With p0 and R0 the gripper's position and rotation at the newest frame, a position p becomes R0^T (p - p0) and a
rotation R becomes R0^T R. Moving and turning robot and scene together changes nothing in them.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from pixio_robot.data.actions.find_poses import check_world_frame, find_action_poses, find_state_pose
from pixio_robot.data.actions.pose_columns import PoseColumns, find_pose_columns
from pixio_robot.data.stats import Range
from pixio_robot.errors import UserError
from pixio_robot.types import DemoSpec
from policies.rotations import (
    from_matrices,
    multiply_matrices,
    nearest_representation,
    rotate_vectors,
    scale_columns,
    to_matrices,
)

ABSOLUTE, RELATIVE = "absolute", "relative"
POSE_REPRS = (ABSOLUTE, RELATIVE)
"""Values of `action_pose_repr` and `obs_pose_repr`, the names of UMI's settings."""


@dataclasses.dataclass(frozen=True)
class RelativePoses:
    """Expresses the absolute poses among columns relative to the newest pose of their arm, and back; the other columns
    stay as they are.

    Shapes: b batch, n steps, c columns, s state.
    """

    poses: Sequence[PoseColumns]
    origins: Mapping[str, tuple[PoseColumns, PoseColumns]]
    """The position and the rotation of each arm in the state."""
    means: Sequence[float] = ()
    """The mean of every absolute column, for `from_frame`: of the two ways to write a rotation as an axis-angle or a
    quaternion, it takes the one nearer to the mean, as the demonstrations do. The shorter axis-angle of a gripper that
    points down would flip with every small movement, and could not be averaged over chunks (temporal ensembling)."""

    @classmethod
    def of_actions(cls, spec: DemoSpec, absolute: Range) -> RelativePoses:
        """absolute: statistics of the actions as they are recorded. Raises UserError unless the actions have absolute
        poses in the world frame, and the state has the position and rotation of their arms."""
        with _naming_setting(f"action_pose_repr = {RELATIVE}"):
            poses = [block for block in find_action_poses(spec) if not block.delta]
            if not poses:
                raise UserError(
                    f"The actions are no absolute poses: {', '.join(spec.action_names)}. Leave it at {ABSOLUTE}, or "
                    "convert the demonstrations with `data actions to=absolute`."
                )
            check_world_frame(spec.controller)
            return cls(poses, _find_origins(spec, poses), absolute.mean.tolist())

    @classmethod
    def of_state(cls, spec: DemoSpec) -> RelativePoses:
        """Raises UserError unless the state has the position and rotation of an arm, and of all arms that it has either
        of."""
        with _naming_setting(f"obs_pose_repr = {RELATIVE}"):
            poses = [block for block in find_pose_columns(spec.state_names) if not block.delta]
            if not poses:
                raise UserError(f"The state has no pose, such as eef_pos and eef_quat: {', '.join(spec.state_names)}.")
            return cls(poses, _find_origins(spec, poses))

    def to_frame(self, columns_bnc: Tensor, newest_bs: Tensor) -> Tensor:
        """Absolute -> relative. newest_bs: the state at the newest frame, in physical units."""
        return self._transform(columns_bnc, newest_bs, to_relative=True)

    def from_frame(self, columns_bnc: Tensor, newest_bs: Tensor) -> Tensor:
        """The inverse of `to_frame`. Rotations of a network, which are only nearly rotations, become some."""
        return self._transform(columns_bnc, newest_bs, to_relative=False)

    def _transform(self, columns_bnc: Tensor, newest_bs: Tensor, to_relative: bool) -> Tensor:
        moved_bnc = columns_bnc.clone()
        for block in self.poses:
            position_b13, rotation_b133 = self._get_origin(block.arm, newest_bs)
            if to_relative:
                rotation_b133 = rotation_b133.transpose(-1, -2)
                position_b13 = -rotate_vectors(rotation_b133, position_b13)
            values = _to_physical(block, columns_bnc)
            if block.is_position:
                values = position_b13 + rotate_vectors(rotation_b133, values)
            else:
                values = from_matrices(multiply_matrices(rotation_b133, to_matrices(values, block.form)), block.form)
                if not to_relative:
                    values = nearest_representation(values, block.form, self._physical_means(block))
            moved_bnc[..., block.first : block.stop] = scale_columns(values, [1 / scale for scale in block.scale])
        return moved_bnc

    def _get_origin(self, arm: str, newest_bs: Tensor) -> tuple[Tensor, Tensor]:
        """Position (b, 1, 3) in m and rotation (b, 1, 3, 3)."""
        position, rotation = self.origins[arm]
        return _to_physical(position, newest_bs)[:, None], to_matrices(
            _to_physical(rotation, newest_bs), rotation.form
        )[:, None]

    def _physical_means(self, block: PoseColumns) -> list[float]:
        means = self.means[block.first : block.stop]
        return [mean * scale for mean, scale in zip(means, block.scale, strict=True)]


@contextlib.contextmanager
def _naming_setting(setting: str) -> Iterator[None]:
    """An error says which setting asked for this."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{setting} does not work with these demonstrations. {error}") from error


def _find_origins(spec: DemoSpec, poses: Sequence[PoseColumns]) -> dict[str, tuple[PoseColumns, PoseColumns]]:
    arms = dict.fromkeys(block.arm for block in poses)
    return {
        arm: (find_state_pose(spec, arm, position=True), find_state_pose(spec, arm, position=False)) for arm in arms
    }


def _to_physical(block: PoseColumns, columns: Tensor) -> Tensor:
    """The block's columns in m, rad or 1."""
    return scale_columns(columns[..., block.first : block.stop], block.scale)


def require_relative_range(of: Range | None) -> Range:
    """Raises UserError for statistics without those of relative poses."""
    if of is None:
        raise UserError(
            f"A policy with {RELATIVE} poses needs their statistics, which depend on its windows: use "
            "policies.relative_statistics.with_relative_poses(statistics, config, spec, [(store, episodes)])."
        )
    return of
