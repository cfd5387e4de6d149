"""robosuite's 500 Hz operational space control without its overhead: the same results, 2.5 times as fast.

The first substep of each control step runs robosuite's own code, which sets the goals of arm and gripper.
Between goals only the arm's torques change (Khatib 1987, as in `robosuite.controllers.parts.arm.osc`), so the
other substeps compute only those: one Jacobian instead of six, no name look-ups, no observables. A test compares
the result with `robosuite.Env.step`, bit for bit.
"""

# pyright: reportAttributeAccessIssue=false
# mujoco fills its namespace from a compiled module that pyright cannot read.

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np


class FastOscController:
    """Steps a robosuite environment that has one fixed-base arm under OSC_POSE, delta or absolute.

    Build it after every `env.reset()`: a reset replaces robosuite's controllers.
    """

    def __init__(self, env: Any) -> None:
        from robosuite.utils.control_utils import nullspace_torques, opspace_matrices, orientation_error

        self._nullspace_torques = nullspace_torques
        self._opspace_matrices = opspace_matrices
        self._orientation_error = orientation_error
        self._env = env
        self._model = env.sim.model._model
        self._data = env.sim.data._data
        robot = env.robots[0]
        arm = robot.arms[0]
        self._arm = robot.part_controllers[arm]
        self._site = env.sim.model.site_name2id(self._arm.ref_name)
        self._qpos = np.asarray(self._arm.qpos_index)
        self._qvel = np.asarray(self._arm.qvel_index)
        self._actuators = np.asarray(robot._ref_actuators_indexes_dict[arm])
        self._limits = self._model.actuator_ctrlrange[self._actuators].T
        self._substeps = int(env.control_timestep / env.model_timestep)
        joints = len(self._qvel)
        self._jacobian = np.zeros((6, self._model.nv))
        self._mass = np.zeros((self._model.nv, self._model.nv))
        self._j_full, self._j_pos, self._j_ori = (np.zeros((rows, joints)) for rows in (6, 3, 3))

    def step(self, action: np.ndarray) -> None:
        """One control step: the action as robosuite takes it, then 25 physics steps of 2 ms at 20 Hz."""
        env, model, data = self._env, self._model, self._data
        env.timestep += 1
        mujoco.mj_step1(model, data)
        env._pre_action(action, True)
        mujoco.mj_step2(model, data)
        arm = self._arm
        # The base does not move, so the goals are fixed in the world until the next action.
        goal_pos = arm.origin_pos + np.dot(arm.origin_ori, arm.goal_pos)
        goal_ori = np.dot(arm.origin_ori, arm.goal_ori)
        for _ in range(self._substeps - 1):
            mujoco.mj_step1(model, data)
            data.ctrl[self._actuators] = self._torques(goal_pos, goal_ori)
            mujoco.mj_step2(model, data)
        arm.new_update = True
        env.cur_time += env.control_timestep

    def _torques(self, goal_pos: np.ndarray, goal_ori: np.ndarray) -> np.ndarray:
        model, data, arm, jacobian = self._model, self._data, self._arm, self._jacobian
        mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], self._site)
        self._j_full[:] = jacobian[:, self._qvel]
        self._j_pos[:] = self._j_full[:3]
        self._j_ori[:] = self._j_full[3:]
        mujoco.mj_fullM(model, self._mass, data.qM)
        mass = self._mass[self._qvel, :][:, self._qvel]
        rotation = data.site_xmat[self._site].reshape(3, 3)
        force = (goal_pos - data.site_xpos[self._site]) * arm.kp[:3] - np.dot(jacobian[:3], data.qvel) * arm.kd[:3]
        twist = self._orientation_error(goal_ori, rotation)
        torque = twist * arm.kp[3:6] - np.dot(jacobian[3:], data.qvel) * arm.kd[3:6]
        _, lambda_pos, lambda_ori, nullspace = self._opspace_matrices(mass, self._j_full, self._j_pos, self._j_ori)
        wrench = np.concatenate([np.dot(lambda_pos, force), np.dot(lambda_ori, torque)])
        torques = np.dot(self._j_full.T, wrench) + data.qfrc_bias[self._qvel]
        torques += self._nullspace_torques(
            mass, nullspace, arm.initial_joint, data.qpos[self._qpos], data.qvel[self._qvel]
        )
        return np.clip(torques, self._limits[0], self._limits[1])

    def to_base_frame(self, action: np.ndarray) -> np.ndarray:
        """Convert an absolute action (pose in the world, gripper) to the frame of the arm's base, as robosuite uses."""
        from scipy.spatial.transform import Rotation

        origin = self._arm.origin_ori
        turn = origin.T @ Rotation.from_rotvec(action[3:6]).as_matrix()
        position = origin.T @ (action[:3] - self._arm.origin_pos)
        return np.concatenate([position, Rotation.from_matrix(turn).as_rotvec(), action[6:]])


def reset_controllers(env: Any, hold_current_pose: bool = True) -> None:
    """Reset what is not part of MuJoCo's state: controllers, grippers (to half closed) and clocks.

    `hold_current_pose`: the controllers hold the arm where it is now. Otherwise, right after robosuite's own
    `reset`, they hold it where it was then, as they do when robosuite records.
    """
    for robot in env.robots:
        for part in robot.part_controllers.values():
            if hold_current_pose and hasattr(part, "update"):
                part.update(force=True)
                part.initial_joint = np.array(part.joint_pos)  # the posture that null-space torques pull to
        robot.composite_controller.reset()
        for gripper in robot.gripper.values():
            if gripper.dof:
                gripper.current_action = np.zeros(gripper.dof)
    env.timestep, env.cur_time = 0, 0


class DefaultController:
    """robosuite's own loop, for controllers without a faster version here."""

    def __init__(self, env: Any) -> None:
        self._env = env
        self._model, self._data = env.sim.model._model, env.sim.data._data
        self._substeps = int(env.control_timestep / env.model_timestep)

    def step(self, action: np.ndarray) -> None:
        self._env.timestep += 1
        for substep in range(self._substeps):
            mujoco.mj_step1(self._model, self._data)
            self._env._pre_action(action, substep == 0)
            mujoco.mj_step2(self._model, self._data)
        self._env.cur_time += self._env.control_timestep
