"""Gymnasium environments that provide their own images.

What Gymnasium has no place for, an environment can say in its `metadata`:

    state_names, action_names    a name for every dimension, with its unit: `eef_pos.x [m]`
    robot, controller            as in the DemoSpec of the demonstrations
    instruction                  what to do, in words: the task that a policy of several tasks is asked for
    initial_states               how many there are, if seeds that agree modulo this number begin with the same one
    packages                     the packages whose versions matter, by the name of their distribution
    pictures                     {camera: (height, width)}: its method `pictures()` returns these images, uint8
                                 (h, w, 3), when they are needed; a policy that acts in chunks rarely looks
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from envs.hosted.package_versions import version_of
from envs.third_party.base import FRONT, EnvFacts
from envs.third_party.spaces import Layout, action_facts, as_action, check_picture, succeeded
from pixio_robot.errors import UserError
from pixio_robot.types import OF_THE_TASK, Frame

DRAWN = "rgb_array"
"""The render mode in which `render()` provides the camera `front`."""
PICTURES = "pictures"
"""The key of `metadata` for images on demand."""


class GymnasiumPlain:
    """See `ForeignPlain`: an environment with its wrappers, of which only the spaces and `render` are known."""

    def __init__(self, task: str, env: gymnasium.Env, blind: str = "") -> None:
        """blind: why it was created without rendering. Raises UserError if its metadata does not fit its spaces."""
        self._env, self._task = env, task
        self._layout = Layout(env.observation_space, task)
        self._observation: Any = None
        on_demand = env.metadata.get(PICTURES) or {}
        self._on_demand = bool(on_demand)
        pictures = {name: (int(height), int(width)) for name, (height, width) in on_demand.items()}
        pictures = pictures or dict(self._layout.pictures)
        self._draws = not pictures and env.render_mode == DRAWN
        if self._draws:
            pictures, blind = self._try_to_draw()
        rate, spec = env.metadata.get("render_fps"), env.unwrapped.spec
        actions = action_facts(env.action_space)
        packages = env.metadata.get("packages") or [type(env.unwrapped).__module__.partition(".")[0]]
        self.facts = EnvFacts(
            **{**actions, "action_names": self._named("action_names", actions["action_names"])},
            state_names=self._named("state_names", self._layout.state_names),
            # Not `dt`, which may be the physics time step.
            control_hz=None if rate is None else float(rate),
            versions=tuple(map(version_of, (*packages, "gymnasium"))),
            instruction=str(env.metadata.get("instruction", "")),
            robot=str(env.metadata.get("robot", OF_THE_TASK)),
            controller=str(env.metadata.get("controller", OF_THE_TASK)),
            pictures=pictures,
            blind=blind,
            initial_states=env.metadata.get("initial_states"),
            left_out=tuple(self._layout.left_out),
            repeats=not (spec is not None and spec.nondeterministic),
        )

    def _named(self, key: str, usual: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(map(str, self._env.metadata.get(key, usual)))
        if len(names) != len(usual):
            raise UserError(f"metadata[{key!r}] of {self._task} has {len(names)} names, but there are {len(usual)}.")
        return names

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
        assert self.facts.pictures is not None
        if self._on_demand:
            found = self._env.unwrapped.pictures()  # pyright: ignore[reportAttributeAccessIssue]
            for name, size in self.facts.pictures.items():
                check_picture(found[name], size, f"{name} of {self._task}")
            return dict(found)
        if not self._draws:
            return self._layout.images(self._observation)
        picture = np.array(self._env.render())
        check_picture(picture, self.facts.pictures[FRONT], f"render() of {self._task}")
        return {FRONT: picture}

    def close(self) -> None:
        self._env.close()
