"""The robosuite environment of a robomimic file, with its own scene and robomimic's observation names."""

# pyright: reportAttributeAccessIssue=false
# mujoco fills its namespace from a compiled module that pyright cannot read.

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from envs.config import EnvConfig
from envs.mujoco_env import MujocoEnv
from envs.robomimic.actions import controller_conversion, get_arm_inputs
from envs.robomimic.env_args import RobosuiteTask, make_robosuite_env, translate_env_args, with_absolute_actions
from envs.robomimic.model import load_model
from envs.robomimic.task import clip_limits, load_recorded_env
from envs.robosuite.controller import reset_controllers
from envs.seeding import global_seed
from envs.spec import make_env_spec
from envs.validation import check_finite_vector
from pixio_robot.data.actions.find_poses import is_in_world_frame
from pixio_robot.data.actions.named_columns import group_columns_by_key
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.types import Frame

_ROBOSUITE_NAMES = {"object": "object-state"}
"""robomimic's observation names that differ from robosuite's."""


def _robosuite_task(config: EnvConfig) -> RobosuiteTask:
    recorded = load_recorded_env(config.task)
    task = translate_env_args(recorded.env_args)
    if "absolute" in recorded.spec.controller:
        task = with_absolute_actions(task, in_world=is_in_world_frame(recorded.spec.controller))
    # Policies may have been trained with object observations.
    return dataclasses.replace(task, arguments=task.arguments | {"use_object_obs": True})


class RobomimicEnv(MujocoEnv):
    """See `Environment` for the interface. Cameras, state and actions are those of the demonstrations' DemoSpec.

    Physics, rewards and robot observations are robosuite's own. The model is rebuilt in every episode, because some
    tasks randomise sizes.
    """

    def __init__(self, config: EnvConfig) -> None:
        """Raises UserError if the installed robosuite lacks the environment, a camera or an observation."""
        self.config = config
        self.spec = make_env_spec(config)
        self._env = make_robosuite_env(_robosuite_task(config))
        # The demonstrations may use another action representation than the controllers.
        self._to_controller = controller_conversion(self.spec.action_names, get_arm_inputs(self._env))
        self._high = clip_limits(self._to_controller.names(self.spec.action_names))
        if self._env.action_dim != len(self._high):
            raise UserError(
                f"The demonstrations of {config.task} have actions of {self.spec.action_dim} dimensions "
                f"({', '.join(self.spec.action_names)}), but their environment expects {self._env.action_dim}."
            )
        self._attach_model()
        cameras = [self._model.camera(index).name for index in range(self._model.ncam)]
        for camera in config.cameras:
            if camera not in cameras:
                raise unknown_name("camera", camera, cameras)
        self._columns = group_columns_by_key(self.spec.state_names)
        self._observations: Mapping[str, np.ndarray] = self._env._get_observations(force_update=True)
        self._check_columns(self._observations)
        self._loaded = False
        """Whether a model was loaded and nothing restored since."""

    def _attach_model(self) -> None:
        """Attach to robosuite's current model."""
        super().__init__(self.config, self._env.sim.model._model, self._env.sim.data._data)

    def _check_columns(self, observations: Mapping[str, np.ndarray]) -> None:
        for key, columns in self._columns.items():
            values = observations.get(_ROBOSUITE_NAMES.get(key, key))
            if values is None:
                raise unknown_name(f"observation of robosuite's {self.spec.task}", key, observations)
            if np.size(values) != len(columns):
                raise UserError(
                    f"The demonstrations of {self.config.task} have {len(columns)} numbers of {key}, but their "
                    f"environment has {np.size(values)}: it is of another version."
                )

    def _model_camera(self, camera: str | None) -> str:
        return camera or self.config.cameras[0]

    def _start(self, seed: int) -> None:
        self._renderer.close()
        with global_seed(seed):
            self._observations = self._env.reset()
        self._attach_model()
        self._loaded = False

    def load_model(self, model_file: str) -> None:
        """Use a demonstration's own model until the next `reset`, so that `reset_to` can restore its states.

        Its sizes may be randomised, and its numbers are rounded as in its XML. Raises UserError if it does not run in
        this environment.
        """
        self._renderer.close()
        with global_seed(0):
            load_model(self._env, model_file)
        self._attach_model()
        self._loaded = True

    def get_state(self) -> np.ndarray:
        return self._env.sim.get_state().flatten()

    def reset_to(self, state: np.ndarray, render: bool = True) -> Frame:
        size = 1 + self._model.nq + self._model.nv
        what, parts = f"The state of {self.config.task}", "time, positions, velocities"
        state = check_finite_vector(state, size, what, parts, UserError)
        env = self._env
        env.sim.reset()
        env.sim.set_state_from_flattened(state)
        env.sim.forward()
        reset_controllers(env, hold_current_pose=not self._loaded)
        self._loaded = False
        self._observations = env._get_observations(force_update=True)
        return self._begin(render)

    def _advance(self, action: np.ndarray) -> tuple[float, bool, bool]:
        action = np.clip(self._to_controller(action), -self._high, self._high)
        self._observations, reward, _, _ = self._env.step(action)
        success = bool(self._env._check_success())
        return float(reward), success, success

    def _state(self) -> np.ndarray:
        state = np.empty(self.spec.state_dim)
        for key, columns in self._columns.items():
            state[columns] = np.ravel(self._observations[_ROBOSUITE_NAMES.get(key, key)])
        return state

    def privileged(self) -> dict[str, np.ndarray]:
        robot = self._env.robots[0]
        return self._eef_pose(robot.eef_site_id[robot.arms[0]]) | self._body_poses()

    def close(self) -> None:
        self._renderer.close()
        self._env.close()
