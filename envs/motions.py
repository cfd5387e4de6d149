"""What experts and random play ask for, a motion of the gripper, in the words of the environment's controller.

A motion is an action of robosuite's OSC_POSE (or of a task without such controllers): how far to go and to turn from
now, each number from -1 to 1, the gripper's last.
"""

from __future__ import annotations

import numpy as np

from envs.config import Controller, EnvConfig
from envs.registry import Privileged
from pixio_robot.errors import UserError

DELTA_POS, DELTA_ROT = 0.05, 0.5
"""Metres and radians a step that a motion of 1 asks for (robosuite's OSC_POSE)."""


def check_controller(config: EnvConfig) -> None:
    """Raises UserError for a controller that takes no motions of the gripper."""
    if config.controller is Controller.JOINT_POSITION:
        raise UserError(
            "Experts and random play move the gripper, through controller=OSC_POSE or OSC_POSE_ABSOLUTE, not "
            f"{config.controller.name}."
        )


def commanded(env: Privileged, motion: np.ndarray) -> np.ndarray:
    """The action float32 (a,) that asks for this motion (a,) from where the gripper is now."""
    if env.config.controller is not Controller.OSC_POSE_ABSOLUTE:
        return motion
    from scipy.spatial.transform import Rotation

    poses = env.privileged()
    place = poses["eef_pos"] + DELTA_POS * motion[:3]
    turn = Rotation.from_rotvec(DELTA_ROT * motion[3:6]) * Rotation.from_matrix(poses["eef_mat"])
    return np.concatenate([place, _steady(turn.as_rotvec()), motion[6:]]).astype(np.float32)


def _steady(turn: np.ndarray) -> np.ndarray:
    """The same turn (3,) [rad] about an axis on the side of x + y, by up to a whole turn.

    A gripper that points down is turned by nearly half a turn, where the shorter of the two ways changes with the least
    movement: what learns from such numbers would learn their mean. On this side of their hands' yaw at the start, arms
    may turn by nearly half a turn either way.
    """
    angle = np.linalg.norm(turn)
    return turn - 2 * np.pi * turn / angle if turn[0] + turn[1] < 0 else turn
