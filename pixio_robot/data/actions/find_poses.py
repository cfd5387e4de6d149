"""Where the poses of a robot's grippers are among the actions and the state of a DemoSpec, and in which frame they are.

The meaning of the columns is read from their names (`pose_columns`).
"""

from __future__ import annotations

from collections.abc import Sequence

from pixio_robot.data.actions.pose_columns import (
    POSITION,
    PoseColumns,
    columns_without_pose,
    find_pose_columns,
    find_possible_poses,
    may_belong_to_gripper,
    suggest_names,
)
from pixio_robot.data.actions.rotations import AXIS_ANGLE, MATRIX, QUATERNION, QUATERNION_WXYZ, ROT6D, ROT6D_ROWS
from pixio_robot.errors import UserError
from pixio_robot.types import DemoSpec

ROBOSUITE = "robosuite"


def find_action_poses(spec: DemoSpec, rotations_only: bool = False) -> list[PoseColumns]:
    """The positions and rotations among the actions. Raises UserError if there is none, and for actions that look like
    one (`rotations_only`: like a rotation) but have unknown names."""
    blocks = find_pose_columns(spec.action_names)
    rest = columns_without_pose(spec.action_names, blocks)
    strange = find_possible_poses(rest, rotations_only)
    if blocks:  # beside known poses, those of other bodies, such as head.yaw, may stay as they are
        strange = [name for name in strange if may_belong_to_gripper(name, {block.arm for block in blocks})]
    if not blocks:
        raise UserError(
            f"The DemoSpec names no action eef_pos.x or eef_delta_pos.x: {', '.join(rest)}. "
            f"If they are poses, name them {how_to_name_actions(spec)}"
        )
    if strange:
        raise UserError(
            f"These actions look like a pose but have unknown names: {', '.join(strange)}. Name all actions "
            f"{how_to_name_actions(spec)}"
        )
    return blocks


def how_to_name_actions(spec: DemoSpec) -> str:
    """The end of a sentence on actions that are poses under unknown names."""
    return (
        f"in order with `data rename` or when importing: action_names='{suggest_names(spec.action_dim)}' "
        "(docs/demonstrations.md, Actions)."
    )


def find_state_pose(spec: DemoSpec, of_arm: str, position: bool) -> PoseColumns:
    """The columns of the state with the position or rotation of the point that the actions of arm `of_arm` move.

    Raises UserError if the state lacks it.
    """
    forms = [POSITION] if position else [ROT6D, QUATERNION, QUATERNION_WXYZ, AXIS_ANGLE, ROT6D_ROWS, MATRIX]
    candidates = [block for block in find_pose_columns(spec.state_names) if not block.delta and block.form in forms]
    arms = dict.fromkeys(block.arm for block in candidates)
    arm = of_arm.replace("arm", "robot") if of_arm not in arms else of_arm
    if arm not in arms and len(arms) == 1 and len({block.arm for block in find_pose_columns(spec.action_names)}) == 1:
        arm = next(iter(arms))
    of_the_hand = [block for block in candidates if block.what == QUATERNION and spec.simulator == ROBOSUITE]
    usable = [block for block in candidates if block.arm == arm and block not in of_the_hand]
    if usable:
        # For robosuite data with another simulator name, too, the controlled point's pose is preferred to the hand's.
        return min(usable, key=lambda block: (forms.index(block.form), block.what == QUATERNION))
    site = "_site" if spec.simulator == ROBOSUITE else ""
    names = ", ".join(f"eef_{form}{site if form == QUATERNION else ''}" for form in forms)
    if of_the_hand:
        keys = list(dict.fromkeys(name.split(" [")[0].rpartition(".")[0] for name in spec.state_names))
        way_out = (
            "Its eef_quat is that of the hand, which is rotated relative to the controlled point: import with "
            f"state={','.join(state_keys_for_conversion(spec, keys))}."
        )
    else:
        way_out = (
            "If it is there under another name, rename it with `data rename` or when importing: "
            f"state_names='{suggest_names(spec.state_dim)}'."
        )
    raise UserError(
        f"The state lacks the pose of the {of_arm}gripper as one of {names}: {', '.join(spec.state_names)}. " + way_out
    )


def state_keys_for_conversion(spec: DemoSpec, keys: Sequence[str]) -> list[str]:
    """The robosuite observation keys to import as the state so that `convert_actions` works: `keys`, with the
    orientation of the controlled point in place of the hand's. Empty if the actions are not poses or the state
    suffices."""
    if spec.simulator != ROBOSUITE or all(block.is_position for block in find_pose_columns(spec.action_names)):
        return []
    rotations = [block for block in find_pose_columns(spec.state_names) if not (block.is_position or block.delta)]
    if any(block.what != QUATERNION for block in rotations):
        return []
    needed = [f"{key}_site" if key.endswith(f"eef_{QUATERNION}") else key for key in keys]
    return needed if needed != list(keys) else []


def is_in_world_frame(controller: str) -> bool:
    """Whether a controller of that name takes poses in the world frame; others name the base, whose frame theirs is."""
    return "base" not in controller


def check_world_frame(controller: str) -> None:
    """Raise UserError for a controller whose poses are not in the world frame, in which those of the state are."""
    if not is_in_world_frame(controller):
        raise UserError(
            f"The actions of controller {controller!r} are not poses in the world frame, as the state's are."
        )
