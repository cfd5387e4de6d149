"""A third-party MuJoCo environment with the interface of our own."""

# pyright: reportAttributeAccessIssue=false
# mujoco fills its namespace from a compiled module that pyright cannot read.

from __future__ import annotations

import mujoco
import numpy as np

from envs.config import EnvConfig
from envs.mujoco_env import MujocoEnv
from envs.rendering.renderer import DEFAULT_GROUPS, FREE_CAMERA
from envs.seeding import IsolatedGenerators
from envs.third_party.base import FRONT_CAMERA, ThirdPartyMujocoEnv
from envs.third_party.spec import third_party_spec
from envs.validation import check_finite_vector
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.types import Frame

_SAVED_STATE = mujoco.mjtState.mjSTATE_INTEGRATION
"""Everything that determines the further course of a simulation."""


class MujocoEnvAdapter(MujocoEnv):
    """See `Environment` for the interface. `front` is MuJoCo's free camera; other cameras are those of the model.

    An episode ends when the environment reports it, or at the horizon. After `reset_to`, goals that are not part of the
    simulation's state are those of the last `reset`.
    """

    def __init__(self, config: EnvConfig, env: ThirdPartyMujocoEnv) -> None:
        self._env = env
        self.spec = third_party_spec(config, env.metadata)
        self._generators = IsolatedGenerators()
        with self._generators.reset(0):
            env.reset(0)
        model, data = env.model, env.data
        known = [FRONT_CAMERA, *(model.camera(index).name for index in range(model.ncam))]
        for camera in self.spec.cameras:
            if camera not in known:
                raise unknown_name("camera", camera, known)
        model.geom_group[np.isin(model.geom_group, DEFAULT_GROUPS)] = 1
        super().__init__(config, model, data)
        self._renderer.set_free_camera(self._env.view)
        # Goals are often shown as sites.
        self._renderer.show_sites_and_sky()
        self._bodies_by_name = {
            model.body(index).name: index for index in range(1, model.nbody) if model.body(index).name
        }
        self._observed = np.zeros(self.spec.state_dim)

    def _model_camera(self, camera: str | None) -> str:
        name = camera or next(iter(self.spec.cameras), FRONT_CAMERA)
        return FREE_CAMERA if name == FRONT_CAMERA else name

    def _start(self, seed: int) -> None:
        with self._generators.reset(seed):
            self._observed = self._env.reset(seed)

    def get_state(self) -> np.ndarray:
        state = np.empty(mujoco.mj_stateSize(self._model, _SAVED_STATE))
        mujoco.mj_getState(self._model, self._data, state, _SAVED_STATE)
        return state

    def reset_to(self, state: np.ndarray, render: bool = True) -> Frame:
        size = mujoco.mj_stateSize(self._model, _SAVED_STATE)
        state = check_finite_vector(state, size, f"The state of {self.config.task}", "as get_state gives it", UserError)
        mujoco.mj_setState(self._model, self._data, state, _SAVED_STATE)
        mujoco.mj_forward(self._model, self._data)
        mujoco.mj_rnePostConstraint(self._model, self._data)  # contact forces, which Ant and Humanoid observe
        self._observed = self._env.on_state_restored()
        return self._begin(render)

    def _advance(self, action: np.ndarray) -> tuple[float, bool, bool]:
        if self.config.clip_actions:
            action = np.clip(action, self._env.metadata.low, self._env.metadata.high)
        with self._generators.activated():
            self._observed, reward, success, over = self._env.step(action)
        return reward, success, over

    def _state(self) -> np.ndarray:
        return self._observed

    def render(self, camera: str | None = None) -> np.ndarray:
        self._show_goal()
        return super().render(camera)

    def render_depth(self, camera: str | None = None) -> np.ndarray:
        self._show_goal()
        return super().render_depth(camera)

    def render_segmentation(self, camera: str | None = None) -> np.ndarray:
        self._show_goal()
        return super().render_segmentation(camera)

    def _show_goal(self) -> None:
        """Looking must not change the course of the episode."""
        state = self.get_state()
        self._env.show_goal()
        mujoco.mj_setState(self._model, self._data, state, _SAVED_STATE)

    def privileged(self) -> dict[str, np.ndarray]:
        """The poses of all named bodies."""
        return self._poses(self._bodies_by_name)

    def camera_pose(self, camera: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        name = self._model_camera(camera)
        return self._renderer.free_camera_pose() if name == FREE_CAMERA else super().camera_pose(name)

    def close(self) -> None:
        self._renderer.close()
        self._env.close()
