"""A third-party MuJoCo environment with the interface of our own."""

# pyright: reportAttributeAccessIssue=false
# mujoco fills its namespace from a compiled module that pyright cannot read.

from __future__ import annotations

import mujoco
import numpy as np

from envs.config import EnvConfig
from envs.rendering.renderer import FREE_VIEW
from envs.rendering.views import Views
from envs.seeding import OwnGenerators
from envs.third_party.base import FRONT, ForeignMujoco
from envs.third_party.spec import foreign_spec
from envs.validation import finite_vector
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.types import Frame, StepResult

_SHOWN_GROUPS = (0, 1, 2)
"""The geom groups MuJoCo draws by default."""

_STATE = mujoco.mjtState.mjSTATE_INTEGRATION
"""Everything that determines the further course of a simulation."""


class ForeignEnv(Views):
    """See `Environment` for the interface. `front` is MuJoCo's free camera; other cameras are those of the model.

    An episode ends when the environment reports it, or at the horizon. After `reset_to`, goals that are not part of the
    simulation's state are those of the last `reset`.
    """

    def __init__(self, config: EnvConfig, foreign: ForeignMujoco) -> None:
        self.config, self._foreign = config, foreign
        self.spec = foreign_spec(config, foreign.facts)
        self._generators = OwnGenerators()
        with self._generators.reset(0):
            foreign.reset(0)
        model, data = foreign.model, foreign.data
        known = [FRONT, *(model.camera(index).name for index in range(model.ncam))]
        for camera in self.spec.cameras:
            if camera not in known:
                raise unknown_name("camera", camera, known)
        model.geom_group[np.isin(model.geom_group, _SHOWN_GROUPS)] = 1
        super().__init__(config, model, data)
        self._renderer.set_free_view(self._foreign.view)
        # Goals are often shown as sites.
        self._renderer.show_surroundings(_SHOWN_GROUPS)
        self._named = {model.body(index).name: index for index in range(1, model.nbody) if model.body(index).name}
        self._observed = np.zeros(self.spec.state_dim)
        self._horizon = config.steps
        self._steps, self._done = 0, True

    def _model_camera(self, camera: str | None) -> str:
        name = camera or next(iter(self.spec.cameras), FRONT)
        return FREE_VIEW if name == FRONT else name

    def reset(self, seed: int, render: bool = True) -> Frame:
        with self._generators.reset(seed):
            self._observed = self._foreign.reset(seed)
        return self._begin(render)

    def _begin(self, render: bool) -> Frame:
        self._steps, self._done = 0, False
        return self._frame(render)

    def get_state(self) -> np.ndarray:
        state = np.empty(mujoco.mj_stateSize(self._model, _STATE))
        mujoco.mj_getState(self._model, self._data, state, _STATE)
        return state

    def reset_to(self, state: np.ndarray, render: bool = True) -> Frame:
        size = mujoco.mj_stateSize(self._model, _STATE)
        state = finite_vector(state, size, f"The state of {self.config.task}", "as get_state gives it", UserError)
        mujoco.mj_setState(self._model, self._data, state, _STATE)
        mujoco.mj_forward(self._model, self._data)
        mujoco.mj_rnePostConstraint(self._model, self._data)  # contact forces, which Ant and Humanoid observe
        self._observed = self._foreign.restored()
        return self._begin(render)

    def step(self, action: np.ndarray, render: bool = True) -> StepResult:
        if self._done:
            raise ValueError("This episode is over (or none was started): call reset first.")
        action = finite_vector(action, self.spec.action_dim, "The action")
        facts = self._foreign.facts
        with self._generators.held():
            self._observed, reward, success, over = self._foreign.step(np.clip(action, facts.low, facts.high))
        self._steps += 1
        self._done = over or self._steps >= self._horizon
        return StepResult(self._frame(render), reward, success, self._done)

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
        self._foreign.show_goal()
        mujoco.mj_setState(self._model, self._data, state, _STATE)

    def _frame(self, render: bool) -> Frame:
        images = {name: self.render(name) for name in self.spec.cameras} if render else {}
        return Frame(images, self._observed.astype(np.float32))

    def privileged(self) -> dict[str, np.ndarray]:
        """The poses of all named bodies."""
        poses = {}
        for name, body in self._named.items():
            poses[f"{name}_pos"] = self._data.xpos[body].copy()
            poses[f"{name}_mat"] = self._data.xmat[body].reshape(3, 3).copy()
        return poses

    def camera_pose(self, camera: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        name = self._model_camera(camera)
        return self._renderer.free_pose() if name == FREE_VIEW else super().camera_pose(name)

    def close(self) -> None:
        self._renderer.close()
        self._foreign.close()
