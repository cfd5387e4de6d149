"""Replays a demonstration's actions open loop and compares the result with its recorded states."""

# pyright: reportAttributeAccessIssue=false
# mujoco fills its namespace from a compiled module that pyright cannot read.

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from envs.robomimic.env_args import RobosuiteTask, make_robosuite_env, translate_env_args, with_absolute_actions
from envs.robomimic.model import load_model
from envs.robomimic.recorded_scene import check_states
from envs.seeding import global_seed
from pixio_robot.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReplayDeviation:
    """How far a replay deviates from the recording.

    first_step: the first step with any difference in positions, None if every bit is reproduced. position: largest
    difference of any joint coordinate (m or rad; objects have joints too) at any step; joint: where it occurred.
    hand_m: largest distance between the recorded and the replayed gripper of the first arm. success: whether the
    task is solved after the last action.
    """

    steps: int
    first_step: int | None
    position: float
    joint: str
    hand_m: float
    success: bool


class Replay:
    """Replays demonstrations in one robosuite environment, built from the file's env_args."""

    def __init__(self, env_args: Mapping[str, Any], absolute: bool = False) -> None:
        """absolute: the actions are absolute poses, whatever env_args say.

        Raises UserError if the installed robosuite cannot build the environment.
        """
        task = translate_env_args(env_args)
        self.task: RobosuiteTask = with_absolute_actions(task, in_world=False) if absolute else task
        self._env: Any = make_robosuite_env(self.task)

    def run(self, model_file: str, states: np.ndarray, actions: np.ndarray) -> ReplayDeviation:
        """Start from states[0] (n, 1 + nq + nv), execute all n actions (n, a), compare with states[1:].

        Raises UserError if the demonstration does not match the environment.
        """
        with self._prepared_env(model_file) as (sim, grip):
            nq, nv = len(sim.data.qpos), len(sim.data.qvel)
            check_states(states, nq, nv)
            if actions.shape[1:] != (self._env.action_dim,):
                raise UserError(
                    f"The demonstration's actions have {actions.shape[1]} dimensions, but {self.task.name} with the "
                    f"file's controller expects {self._env.action_dim}."
                )
            hand = _HandKinematics(sim.model._model, grip)
            sim.set_state_from_flattened(states[0, : 1 + nq + nv])
            sim.forward()
            worst, joint, hand_m, first = 0.0, "", 0.0, None
            for step, action in enumerate(actions):
                self._env.step(action)
                if step + 1 == len(states):
                    break
                recorded = states[step + 1, 1 : 1 + nq]
                away = np.nan_to_num(np.abs(sim.data.qpos - recorded), nan=math.inf)
                if away.max() > worst:
                    worst, joint = float(away.max()), _joint_of_position(sim.model._model, int(away.argmax()))
                if first is None and away.any():
                    first = step + 1
                hand_m = max(hand_m, float(np.linalg.norm(hand.at(sim.data.qpos) - hand.at(recorded))))
            success = bool(self._env._check_success())
        return ReplayDeviation(
            steps=len(actions), first_step=first, position=worst, joint=joint, hand_m=hand_m, success=success
        )

    @contextlib.contextmanager
    def _prepared_env(self, model_file: str) -> Iterator[tuple[Any, int]]:
        """The environment with the demonstration's own model, reset in the same way as by robosuite's recorder."""
        with global_seed(0):
            load_model(self._env, model_file)
            self._env.sim.reset()
            robot = self._env.robots[0]
            yield self._env.sim, robot.eef_site_id[robot.arms[0]]

    def close(self) -> None:
        self._env.close()


class _HandKinematics:
    """Position of the grip site, computed on separate data so that the simulation is not disturbed."""

    def __init__(self, model: Any, site: int) -> None:
        import mujoco

        self._model, self._data, self._site = model, mujoco.MjData(model), site

    def at(self, positions: np.ndarray) -> np.ndarray:
        import mujoco

        self._data.qpos[:] = positions
        mujoco.mj_kinematics(self._model, self._data)
        return self._data.site_xpos[self._site].copy()


def _joint_of_position(model: Any, place: int) -> str:
    """The joint to which the position with index `place` belongs."""
    return model.joint(int(np.searchsorted(model.jnt_qposadr, place, side="right")) - 1).name
