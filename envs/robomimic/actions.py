"""Converts actions of a demonstration store to those that the controllers of its robomimic environment expect.

`pixio-robot data actions` changes the rotation representation or the unit of a store's actions. The environment's
controllers still expect axis-angle, and deltas as fractions of the largest one (`output_max`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from pixio_robot.data.actions.pose_columns import POSITION, PoseColumns, find_pose_columns
from pixio_robot.data.actions.representations import ActionConverter
from pixio_robot.data.actions.rotations import AXIS_ANGLE
from pixio_robot.errors import UserError


@dataclasses.dataclass(frozen=True)
class ArmInput:
    """The input of one arm's operational space controller. scale: m, then rad, per unit; three numbers if it takes no
    rotation."""

    delta: bool
    scale: tuple[float, ...]


def get_arm_inputs(env: Any) -> list[ArmInput]:
    """The arms of robosuite's environment, in the order of the action's dimensions; empty if actions are not poses."""
    inputs = []
    for robot in env.robots:
        for name in robot.arms:
            controller = robot.part_controllers[name]
            if not str(controller.name).startswith("OSC"):
                return []
            delta, width = controller.input_type == "delta", 6 if controller.use_ori else 3
            largest = np.broadcast_to(controller.output_max, width) if delta else np.ones(width)
            inputs.append(ArmInput(delta, tuple(largest.tolist())))
    return inputs


def controller_conversion(names: Sequence[str], arms: Sequence[ArmInput]) -> ActionConverter:
    """The conversion from actions called `names` to those that the arms expect; the identity if they are unknown.

    Raises UserError for deltas if the controllers expect absolute poses, and vice versa.
    """
    try:
        blocks = find_pose_columns(names)
    except UserError:  # names that start like those of a pose, but are not
        return ActionConverter([])
    order = list(dict.fromkeys(block.arm for block in blocks))
    if len(order) != len(arms):
        return ActionConverter([])
    return ActionConverter([(block, _controller_block(block, names, arms[order.index(block.arm)])) for block in blocks])


def _controller_block(block: PoseColumns, names: Sequence[str], arm: ArmInput) -> PoseColumns:
    """The block as the arm's controller expects it; the same block if nothing has to be changed."""
    if block.delta != arm.delta:
        ways = {True: "deltas", False: "absolute poses"}
        raise UserError(
            f"The actions {block.described()} are {ways[block.delta]}, but the environment's controller expects "
            f"{ways[arm.delta]}: convert them with `pixio-robot data actions STORE to=...`, and train on the result."
        )
    scale = arm.scale[:3] if block.is_position else arm.scale[3:]
    if not scale:
        raise UserError(
            f"The actions {block.described()} rotate the gripper, but the environment's controller only translates it."
        )
    # Without a unit in the name, the unit is assumed to be the controller's own.
    silent = block.delta and not names[block.first].endswith("]")
    if block.form in (POSITION, AXIS_ANGLE) and (silent or np.allclose(block.scale, scale)):
        return block
    return dataclasses.replace(block, what=POSITION if block.is_position else AXIS_ANGLE, scale=scale)
