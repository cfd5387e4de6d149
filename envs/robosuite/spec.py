"""The DemoSpec of a robosuite task."""

from __future__ import annotations

import numpy as np

from envs.config import Controller, EnvConfig
from envs.robomimic.task import REACH_M
from envs.seeded_spec import GRIPPER_ACTION, POSITION, TWO_FINGERS, pose_columns, position_deltas, seeded_spec
from pixio_robot.types import DemoSpec

_GRIPPERS = {
    "Panda": TWO_FINGERS,
    "Sawyer": TWO_FINGERS,
    "UR5e": tuple(f"gripper.joint{joint} [rad]" for joint in range(1, 7)),  # Robotiq 85
}
_ARM_JOINTS = {"Panda": 7, "Sawyer": 7, "UR5e": 6}
_CONTROLLER_NAMES = {
    Controller.OSC_POSE: "OSC_POSE delta",
    Controller.OSC_POSE_ABSOLUTE: "OSC_POSE absolute",
    Controller.JOINT_POSITION: "JOINT_POSITION delta",
}
ABSOLUTE_REACH = (*[REACH_M] * 3, *[2 * np.pi] * 3)
"""The largest absolute pose to choose. Rotation vectors may have an angle of up to a full turn."""


def robosuite_spec(config: EnvConfig) -> DemoSpec:
    # The arm in Wipe holds an eraser instead of a gripper.
    grips = config.task != "Wipe"
    return seeded_spec(
        config,
        packages=("robosuite", "mujoco"),
        robot=config.robot,
        controller=_CONTROLLER_NAMES[config.controller],
        state=(*pose_columns("eef"), *(_GRIPPERS[config.robot] if grips else ())),
        actions=(*_arm_actions(config), *((GRIPPER_ACTION,) if grips else ())),
    )


def _arm_actions(config: EnvConfig) -> tuple[str, ...]:
    if config.controller is Controller.JOINT_POSITION:
        return tuple(f"joint{joint}_delta [0.05 rad]" for joint in range(1, _ARM_JOINTS[config.robot] + 1))
    if config.controller is Controller.OSC_POSE_ABSOLUTE:
        return (*POSITION, *(f"eef_axis_angle.{axis} [rad]" for axis in "xyz"))
    return (*position_deltas(0.05), *(f"eef_delta_axis_angle.{axis} [0.5 rad]" for axis in "xyz"))
