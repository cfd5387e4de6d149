"""What all environments with a MuJoCo model share: the course of an episode, and frames of images and state."""

# pyright: reportAttributeAccessIssue=false
# mujoco fills its namespace from a compiled module that pyright cannot read.

from __future__ import annotations

import abc

import mujoco
import numpy as np

from envs.config import EnvConfig
from envs.rendering.views import MujocoRendering
from envs.spec import max_episode_steps
from envs.validation import check_step
from pixio_robot.types import DemoSpec, Frame, StepResult


class MujocoEnv(MujocoRendering, abc.ABC):
    """See `Environment` for the interface. A subclass starts the episode of a seed, takes a step, and says what the
    state is; its `reset_to` ends with `_begin`."""

    spec: DemoSpec
    _steps, _done = 0, True

    def __init__(self, config: EnvConfig, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        super().__init__(config, model, data)
        self._horizon = max_episode_steps(config)

    @abc.abstractmethod
    def _start(self, seed: int) -> None: ...

    @abc.abstractmethod
    def _advance(self, action: np.ndarray) -> tuple[float, bool, bool]:
        """Take one control step; returns (reward, success, whether the episode is over before the horizon)."""

    @abc.abstractmethod
    def _state(self) -> np.ndarray:
        """The state (s,) after the last step."""

    def reset(self, seed: int, render: bool = True) -> Frame:
        self._start(seed)
        return self._begin(render)

    def _begin(self, render: bool) -> Frame:
        self._steps, self._done = 0, False
        return self._frame(render)

    def step(self, action: np.ndarray, render: bool = True) -> StepResult:
        reward, success, over = self._advance(check_step(self._done, action, self.spec.action_dim))
        self._steps += 1
        self._done = over or self._steps >= self._horizon
        return StepResult(self._frame(render), reward, success, self._done)

    def _frame(self, render: bool) -> Frame:
        images = {name: self.render(name) for name in self.spec.cameras} if render else {}
        return Frame(images, self._state().astype(np.float32))
