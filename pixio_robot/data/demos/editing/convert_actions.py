"""Converting a store's actions: between deltas and absolute poses, and between representations of rotations.

The meaning of the columns is read from their names (`pose_columns`). A delta starts from the pose in the state of the
same step, whose columns are named in the same way; in robosuite's data, from where the gripper is a physics step later.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Sequence

import numpy as np

from pixio_robot.data.actions.find_poses import (
    ROBOSUITE,
    check_world_frame,
    find_action_poses,
    find_state_pose,
    how_to_name_actions,
)
from pixio_robot.data.actions.pose_columns import (
    POSITION,
    PoseColumns,
    columns_without_pose,
    find_pose_columns,
    replace_columns,
)
from pixio_robot.data.actions.representations import ActionConverter
from pixio_robot.data.actions.rotations import (
    AXIS_ANGLE,
    ROTATION_SIZES,
    apply_deltas,
    deltas_between,
    matrices_from_rotations,
    rotations_from_matrices,
)
from pixio_robot.data.demos.editing.rewrite import Edit
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.types import UNKNOWN, DemoSpec, Episode

DELTA, ABSOLUTE = "delta", "absolute"
_LATE_SIMULATORS, _LATE_BY_S = (ROBOSUITE, "libero"), 0.002
"""robosuite's controllers start one physics step later than the observations that it returns."""
_MOTION_TOLERANCE = 1e-5
"""In m, rad or 1: above the float32 rounding error of a difference of equal poses, below any deliberate motion."""

_SCALE_SETTINGS = {POSITION: "scale_position", AXIS_ANGLE: "scale_rotation"}
"""Form of a delta with a scale -> its setting."""
_ROUNDING_TOLERANCE = 1e-4
"""A delta this little above 1 is the rounding of float32, and clipping it changes nothing."""


def convert_actions(
    spec: DemoSpec, to: str = "", rotation: str = "", scale_position: float = 0.05, scale_rotation: float = 0.5
) -> Edit:
    """Convert actions to `to` (delta or absolute) and their rotations to the form `rotation` (a key of
    `rotations.ROTATION_SIZES`). Empty means unchanged.

    `scale_position` [m] and `scale_rotation` [rad] are the size of a new delta of 1; only axis_angle rotations have a
    scale. Raises UserError if the spec does not say what its actions are, or if they need no conversion.
    """
    if to not in ("", DELTA, ABSOLUTE):
        raise unknown_name("kind of actions", to, (DELTA, ABSOLUTE))
    if rotation and rotation not in ROTATION_SIZES:
        raise unknown_name("form of rotations", rotation, ROTATION_SIZES)
    if min(scale_position, scale_rotation) <= 0:
        raise UserError("scale_position and scale_rotation must be above 0: the size of a delta of 1 in m and rad.")
    before = find_action_poses(spec, rotations_only=not to)
    rest = columns_without_pose(spec.action_names, before)
    if rotation and all(block.is_position for block in before):
        raise UserError(
            f"rotation={rotation}, but none of the actions is known to be a rotation: {', '.join(spec.action_names)}. "
            f"If there is one, name it {how_to_name_actions(spec)}"
        )
    after = [_target_columns(block, to, rotation, scale_position, scale_rotation) for block in before]
    if before == after:
        raise UserError(f"The actions already have this form: {', '.join(spec.action_names)}.")
    # A delta starts from the pose of its step, in both directions of the conversion.
    starts = [
        find_state_pose(spec, one.arm, one.is_position) if one.delta != other.delta else None
        for one, other in zip(before, after, strict=True)
    ]

    lead = _LATE_BY_S * spec.control_hz if spec.simulator in _LATE_SIMULATORS else 0.0

    def change(episode: Episode) -> Episode:
        parts = [
            episode.actions[:, one.first : one.stop]
            if one == other
            else other.write(
                _convert_pose(
                    one.read(episode.actions), one, other, start and _extrapolate(start.read(episode.state), lead)
                )
            )
            for one, other, start in zip(before, after, starts, strict=True)
        ]
        columns = replace_columns(list(episode.actions.T), before, [list(part.T) for part in parts])
        return dataclasses.replace(episode, actions=np.stack(columns, 1).astype(np.float32))

    names = ActionConverter(list(zip(before, after, strict=True))).names(spec.action_names)
    controller = _controller_name(spec.controller, after) if to else spec.controller
    spec = dataclasses.replace(spec, action_names=tuple(names), controller=controller)
    return Edit(spec, change, _describe_conversion(before, after, rest))


def _describe_conversion(
    before: Sequence[PoseColumns], after: Sequence[PoseColumns], rest: Sequence[str]
) -> tuple[str, ...]:
    pairs = list(zip(before, after, strict=True))
    changed = [f"{one.described()} -> {other.described()}" for one, other in pairs if one != other]
    kept = [one.described() for one, other in pairs if one == other]
    kept += dict.fromkeys(re.sub(r"\.\d+$", "", name.split(" [")[0]) for name in rest)
    return (f"converted: {'; '.join(changed)}", *([f"unchanged: {', '.join(kept)}"] if kept else []))


def is_motionless(spec: DemoSpec, actions: Iterable[np.ndarray]) -> bool:
    """Whether all pose deltas in these actions (each (n, a)) are 0, so that nothing moves."""
    deltas = [block for block in find_pose_columns(spec.action_names) if block.delta]
    return bool(deltas) and all(
        np.abs(episode[:, block.first : block.stop] * np.array(block.scale) - _zero_delta(block)).max(initial=0)
        < _MOTION_TOLERANCE
        for episode in actions
        for block in deltas
    )


def warn_about_clipped_deltas(before: DemoSpec, after: DemoSpec, actions: Iterable[np.ndarray]) -> tuple[str, ...]:
    """A warning if deltas that a conversion from `before` to `after` made lie beyond -1 to 1, to which controllers clip
    them: in how many steps of `actions` (each (n, a)), and which scales would fit. Empty otherwise."""
    made = [
        block
        for block in find_pose_columns(after.action_names)
        if block.delta and block.form in _SCALE_SETTINGS and not set(block.names()) & set(before.action_names)
    ]
    steps = beyond = 0
    farthest = dict.fromkeys(_SCALE_SETTINGS, 0.0)  # in m and rad
    for episode in actions if made else ():
        far = np.zeros(len(episode), bool)
        for block in made:
            size = np.abs(episode[:, block.first : block.stop]).max(1, initial=0)
            far |= size > 1 + _ROUNDING_TOLERANCE
            if size.max(initial=0) > 1 + _ROUNDING_TOLERANCE:
                farthest[block.form] = max(farthest[block.form], float(size.max() * block.scale[0]))
        steps += len(episode)
        beyond += int(far.sum())
    if not beyond:
        return ()
    fitting = " ".join(f"{_SCALE_SETTINGS[form]}={_rounded_up(most):g}" for form, most in farthest.items() if most)
    return (
        f"warning: in {beyond} of {steps} steps ({beyond / steps:.1%}), deltas lie beyond -1 to 1, to which a "
        f"controller clips them. These scales fit all: {fitting}",
    )


def _rounded_up(value: float) -> float:
    """To two digits."""
    digit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / digit - _ROUNDING_TOLERANCE) * digit


def _zero_delta(block: PoseColumns) -> np.ndarray:
    """The values of a delta without motion."""
    return np.zeros(3) if block.is_position else rotations_from_matrices(np.eye(3), block.form)


def _target_columns(
    block: PoseColumns, to: str, rotation: str, scale_position: float, scale_rotation: float
) -> PoseColumns:
    delta = to == DELTA if to else block.delta
    what = block.what if block.is_position or rotation in ("", block.form) else rotation
    if (what, delta) == (block.what, block.delta):
        return block
    target = dataclasses.replace(block, what=what, delta=delta)
    scale = {POSITION: scale_position, AXIS_ANGLE: scale_rotation}.get(target.form, 1.0) if delta else 1.0
    return dataclasses.replace(target, scale=(scale,) * ROTATION_SIZES.get(target.form, 3))


def _extrapolate(poses: np.ndarray, lead: float) -> np.ndarray:
    """Poses of successive steps, each moved on by `lead` times the motion of the step before it; the first rests."""
    if not lead or len(poses) < 2:
        return poses
    motion = deltas_between(poses[:-1], poses[1:])
    if poses.ndim == 2:
        motion = lead * motion
    else:
        turns_n3 = rotations_from_matrices(motion, AXIS_ANGLE)
        motion = matrices_from_rotations(lead * turns_n3, AXIS_ANGLE)
    return np.concatenate([poses[:1], apply_deltas(poses[1:], motion)])


def _convert_pose(values: np.ndarray, before: PoseColumns, after: PoseColumns, start: np.ndarray | None) -> np.ndarray:
    if start is None:
        return values
    return apply_deltas(start, values) if before.delta else deltas_between(start, values)


def _controller_name(name: str, actions: Sequence[PoseColumns]) -> str:
    """The controller's name with the word delta or absolute updated; an unknown controller stays unknown.

    Raises UserError for poses that are not in the world frame.
    """
    if name == UNKNOWN:
        return name
    check_world_frame(name)
    ways = {DELTA if block.delta else ABSOLUTE for block in actions}
    if len(ways) > 1:
        return name
    way = ways.pop()
    return (
        re.sub(rf"\b({DELTA}|{ABSOLUTE})\b", way, name)
        if re.search(rf"\b({DELTA}|{ABSOLUTE})\b", name)
        else f"{name} {way}"
    )
