"""Gymnasium environments that provide their own images."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from envs.foreign import FRONT, EnvFacts
from envs.foreign_spaces import Layout, action_facts, as_action, check_picture, succeeded
from pixio_robot.types import Frame

DRAWN = "rgb_array"
"""The render mode in which `render()` provides the camera `front`."""


class GymnasiumPlain:
    """See `ForeignPlain`: an environment with its wrappers, of which only the spaces and `render` are known."""

    def __init__(self, task: str, env: gymnasium.Env, blind: str = "") -> None:
        """blind: why it was created without rendering."""
        self._env, self._task = env, task
        self._layout = Layout(env.observation_space, task)
        self._observation: Any = None
        self._draws = not self._layout.pictures and env.render_mode == DRAWN
        pictures = dict(self._layout.pictures)
        if self._draws:
            pictures, blind = self._try_to_draw()
        rate = env.metadata.get("render_fps")
        self.facts = EnvFacts(
            state_names=self._layout.state_names,
            **action_facts(env.action_space),
            # Not `dt`, which may be the physics time step.
            control_hz=None if rate is None else float(rate),
            versions=(type(env.unwrapped).__module__.partition(".")[0], "gymnasium"),
            pictures=pictures,
            blind=blind,
            left_out=tuple(self._layout.left_out),
            repeats=not (env.unwrapped.spec is not None and env.unwrapped.spec.nondeterministic),
        )

    def _try_to_draw(self) -> tuple[dict[str, tuple[int, int]], str]:
        """The size of the image from `render`, or why there is none."""
        self._env.reset(seed=0)
        try:
            picture = np.array(self._env.render())
        except Exception as error:  # third-party code may fail in any way
            return {}, str(error) or type(error).__name__
        if picture.ndim != 3:
            return {}, f"render() returns {picture.dtype} {picture.shape}, but should return uint8 (h, w, 3)"
        height, width, _ = picture.shape
        return {FRONT: (height, width)}, ""

    def reset(self, seed: int, look: bool) -> Frame:
        self._observation = self._env.reset(seed=seed)[0]
        return self._frame(look)

    def step(self, action: np.ndarray, look: bool) -> tuple[Frame, float, bool, bool]:
        given = as_action(self._env.action_space, action)
        self._observation, reward, terminated, truncated, info = self._env.step(given)
        return self._frame(look), float(reward), succeeded(info), bool(terminated or truncated)

    def _frame(self, look: bool) -> Frame:
        state = self._layout.state(self._observation).astype(np.float32)
        return Frame(self.shown() if look else {}, state)

    def shown(self) -> dict[str, np.ndarray]:
        if not self._draws:
            return self._layout.images(self._observation)
        assert self.facts.pictures is not None
        picture = np.array(self._env.render())
        check_picture(picture, self.facts.pictures[FRONT], f"render() of {self._task}")
        return {FRONT: picture}

    def close(self) -> None:
        self._env.close()
