"""Converts the gripper motions of experts and random play to actions of the environment's controller.

A motion is an action of robosuite's OSC_POSE (or of a task without such controllers): translation and rotation relative
to the current pose, each in [-1, 1], and the gripper last.
"""

from __future__ import annotations

import numpy as np

from envs.config import Controller, EnvConfig
from envs.registry import PrivilegedEnv
from pixio_robot.errors import UserError

DELTA_POS, DELTA_ROT = 0.05, 0.5
"""Metres and radians per step that correspond to a motion of 1 (robosuite's OSC_POSE)."""

OPEN, CLOSE = -1.0, 1.0
"""The last dimension of a motion."""


def rotation_vector(rotation: np.ndarray) -> np.ndarray:
    """Axis times angle (rad) of a rotation matrix, for angles below pi."""
    angle = np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))
    axis = np.array((rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]))
    return 0.5 * axis if angle < 1e-4 else axis * angle / (2 * np.sin(angle))


def check_controller(config: EnvConfig) -> None:
    """Raise UserError for a controller that does not accept gripper motions."""
    if config.controller is Controller.JOINT_POSITION:
        raise UserError(
            "Experts and random play need a controller of the gripper's pose, controller=osc_pose or "
            f"osc_pose_absolute, not {config.controller.value}."
        )


def motion_to_action(env: PrivilegedEnv, motion: np.ndarray) -> np.ndarray:
    """The action, float32 (a,), for a motion (a,) from the current pose of the gripper."""
    if env.config.controller is not Controller.OSC_POSE_ABSOLUTE:
        return motion
    from scipy.spatial.transform import Rotation

    poses = env.privileged()
    position = poses["eef_pos"] + DELTA_POS * motion[:3]
    turn = Rotation.from_rotvec(DELTA_ROT * motion[3:6]) * Rotation.from_matrix(poses["eef_mat"])
    return np.concatenate([position, _canonical_rotation_vector(turn.as_rotvec()), motion[6:]]).astype(np.float32)


def _canonical_rotation_vector(turn: np.ndarray) -> np.ndarray:
    """The same rotation vector (3,) [rad], with its axis on the side of x + y >= 0 and an angle of up to a full turn.

    A gripper that points down is rotated by nearly half a turn, where the shorter of the two representations flips with
    the slightest movement: a policy would learn their mean. With this choice, arms can turn by nearly half a turn
    either way from their initial yaw without a flip.
    """
    angle = np.linalg.norm(turn)
    return turn - 2 * np.pi * turn / angle if turn[0] + turn[1] < 0 else turn
