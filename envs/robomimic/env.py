"""The robosuite environment of a robomimic file, with its own scene and robomimic's observation names."""

# pyright: reportAttributeAccessIssue=false
# mujoco fills its namespace from a compiled module that pyright cannot read.

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from envs.config import EnvConfig
from envs.rendering.views import Views
from envs.robomimic.actions import arms_of, taken
from envs.robomimic.env_args import Task, build, taking_absolute, translated
from envs.robomimic.model import load_model
from envs.robomimic.task import clipped_at, recorded
from envs.robosuite.controller import start_anew
from envs.seeding import global_seed
from envs.spec import spec_of
from envs.validation import finite_vector
from pixio_robot.data.actions.named_columns import group_columns_by_key
from pixio_robot.data.demos.editing.convert_actions import is_in_world_frame
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.types import Frame, StepResult

_ELSEWHERE = {"object": "object-state"}
"""robomimic's observation names that differ from robosuite's."""


def _task(config: EnvConfig) -> Task:
    found = recorded(config.task)
    task = translated(found.env_args)
    if "absolute" in found.spec.controller:
        task = taking_absolute(task, in_world=is_in_world_frame(found.spec.controller))
    # Policies may have been trained with object observations.
    return dataclasses.replace(task, arguments=task.arguments | {"use_object_obs": True})


class RobomimicEnv(Views):
    """See `Environment` for the interface. Cameras, state and actions are those of the demonstrations' DemoSpec.

    Physics, rewards and robot observations are robosuite's own. The model is rebuilt in every episode, because some
    tasks randomise sizes.
    """

    def __init__(self, config: EnvConfig) -> None:
        """Raises UserError if the installed robosuite lacks the environment, a camera or an observation."""
        self.config = config
        self.spec = spec_of(config)
        self._env = build(_task(config))
        # The demonstrations may use another action representation than the controllers.
        self._taken = taken(self.spec.action_names, arms_of(self._env))
        self._high = clipped_at(self._taken.names(self.spec.action_names))
        if self._env.action_dim != len(self._high):
            raise UserError(
                f"The demonstrations of {config.task} have actions of {self.spec.action_dim} dimensions "
                f"({', '.join(self.spec.action_names)}), but their environment expects {self._env.action_dim}."
            )
        self._attach()
        cameras = [self._model.camera(index).name for index in range(self._model.ncam)]
        for camera in config.cameras:
            if camera not in cameras:
                raise unknown_name("camera", camera, cameras)
        self._columns = group_columns_by_key(self.spec.state_names)
        self._check_columns(self._env._get_observations(force_update=True))
        self._loaded = False
        """Whether a model was loaded and nothing restored since."""
        self._steps, self._done = 0, True

    def _attach(self) -> None:
        """Attach to robosuite's current model."""
        super().__init__(self.config, self._env.sim.model._model, self._env.sim.data._data)

    def _check_columns(self, observations: Mapping[str, np.ndarray]) -> None:
        for key, columns in self._columns.items():
            found = observations.get(_ELSEWHERE.get(key, key))
            if found is None:
                raise unknown_name(f"observation of robosuite's {self.spec.task}", key, observations)
            if np.size(found) != len(columns):
                raise UserError(
                    f"The demonstrations of {self.config.task} have {len(columns)} numbers of {key}, but their "
                    f"environment has {np.size(found)}: it is of another version."
                )

    def _model_camera(self, camera: str | None) -> str:
        return camera or self.config.cameras[0]

    def reset(self, seed: int, render: bool = True) -> Frame:
        self._renderer.close()
        with global_seed(seed):
            observations = self._env.reset()
        self._attach()
        self._loaded = False
        return self._begin(observations, render)

    def load_model(self, model_file: str) -> None:
        """Use a demonstration's own model until the next `reset`, so that `reset_to` can restore its states.

        Its sizes may be randomised, and its numbers are rounded as in its XML. Raises UserError if it does not run in
        this environment.
        """
        self._renderer.close()
        with global_seed(0):
            load_model(self._env, model_file)
        self._attach()
        self._loaded = True

    def get_state(self) -> np.ndarray:
        return self._env.sim.get_state().flatten()

    def reset_to(self, state: np.ndarray, render: bool = True) -> Frame:
        size = 1 + self._model.nq + self._model.nv
        what, parts = f"The state of {self.config.task}", "time, positions, velocities"
        state = finite_vector(state, size, what, parts, UserError)
        env = self._env
        env.sim.reset()
        env.sim.set_state_from_flattened(state)
        env.sim.forward()
        start_anew(env, from_here=not self._loaded)
        self._loaded = False
        return self._begin(env._get_observations(force_update=True), render)

    def _begin(self, observations: Mapping[str, np.ndarray], render: bool) -> Frame:
        self._steps, self._done = 0, False
        return self._frame(observations, render)

    def step(self, action: np.ndarray, render: bool = True) -> StepResult:
        if self._done:
            raise ValueError("This episode is over (or none was started): call reset first.")
        action = self._taken(finite_vector(action, self.spec.action_dim, "The action"))
        observations, reward, _, _ = self._env.step(np.clip(action, -self._high, self._high))
        self._steps += 1
        success = bool(self._env._check_success())
        self._done = success or self._steps >= self.config.steps
        return StepResult(self._frame(observations, render), float(reward), success, self._done)

    def _frame(self, observations: Mapping[str, np.ndarray], render: bool) -> Frame:
        state = np.empty(self.spec.state_dim, np.float32)
        for key, columns in self._columns.items():
            state[columns] = np.ravel(observations[_ELSEWHERE.get(key, key)])
        images = {name: self._renderer.render(name) for name in self.config.cameras} if render else {}
        return Frame(images, state)

    def privileged(self) -> dict[str, np.ndarray]:
        robot = self._env.robots[0]
        return self._hand_pose(robot.eef_site_id[robot.arms[0]]) | self._body_poses()

    def close(self) -> None:
        self._renderer.close()
        self._env.close()
