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
from envs.hosted.success import is_success
from envs.third_party.base import FRONT_CAMERA, EnvMetadata
from envs.third_party.spaces import ObservationLayout, action_metadata, check_image, unflatten_action
from pixio_robot.errors import UserError
from pixio_robot.types import OF_THE_TASK, Frame

RENDER_MODE = "rgb_array"
"""The render mode in which `render()` provides the camera `front`."""
PICTURES_KEY = "pictures"
"""The key of `metadata` for images on demand."""


class GymnasiumImages:
    """See `ThirdPartyImageEnv`: an environment with its wrappers, of which only the spaces and `render` are known."""

    def __init__(self, task: str, env: gymnasium.Env, render_error: str = "") -> None:
        """render_error: why it was created without rendering, if it was. Raises UserError if its metadata does not fit
        its spaces."""
        self._env, self._task = env, task
        self._layout = ObservationLayout(env.observation_space, task)
        self._observation: Any = None
        on_demand = env.metadata.get(PICTURES_KEY) or {}
        self._on_demand = bool(on_demand)
        image_sizes = {name: (int(height), int(width)) for name, (height, width) in on_demand.items()}
        image_sizes = image_sizes or dict(self._layout.image_sizes)
        self._renders = not image_sizes and env.render_mode == RENDER_MODE
        if self._renders:
            image_sizes, render_error = self._try_to_render()
        rate, spec = env.metadata.get("render_fps"), env.unwrapped.spec
        actions = action_metadata(env.action_space)
        packages = env.metadata.get("packages") or [type(env.unwrapped).__module__.partition(".")[0]]
        self.metadata = EnvMetadata(
            **{**actions, "action_names": self._get_names("action_names", actions["action_names"])},
            state_names=self._get_names("state_names", self._layout.state_names),
            # Not `dt`, which may be the physics time step.
            control_hz=None if rate is None else float(rate),
            versions=tuple(map(version_of, (*packages, "gymnasium"))),
            instruction=str(env.metadata.get("instruction", "")),
            robot=str(env.metadata.get("robot", OF_THE_TASK)),
            controller=str(env.metadata.get("controller", OF_THE_TASK)),
            image_sizes=image_sizes,
            render_error=render_error,
            initial_states=env.metadata.get("initial_states"),
            unsupported_parts=tuple(self._layout.unsupported_parts),
            deterministic=not (spec is not None and spec.nondeterministic),
        )

    def _get_names(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(map(str, self._env.metadata.get(key, default)))
        if len(names) != len(default):
            raise UserError(f"metadata[{key!r}] of {self._task} has {len(names)} names, but there are {len(default)}.")
        return names

    def _try_to_render(self) -> tuple[dict[str, tuple[int, int]], str]:
        """The size of the image from `render`, or why there is none."""
        self._env.reset(seed=0)
        try:
            image = np.array(self._env.render())
        except Exception as error:  # third-party code may fail in any way
            return {}, str(error) or type(error).__name__
        if image.ndim != 3:
            return {}, f"render() returns {image.dtype} {image.shape}, but should return uint8 (h, w, 3)"
        height, width, _ = image.shape
        return {FRONT_CAMERA: (height, width)}, ""

    def reset(self, seed: int, render: bool) -> Frame:
        self._observation = self._env.reset(seed=seed)[0]
        return self._frame(render)

    def step(self, action: np.ndarray, render: bool) -> tuple[Frame, float, bool, bool]:
        env_action = unflatten_action(self._env.action_space, action)
        self._observation, reward, terminated, truncated, info = self._env.step(env_action)
        return self._frame(render), float(reward), is_success(info), bool(terminated or truncated)

    def _frame(self, render: bool) -> Frame:
        state = self._layout.state(self._observation).astype(np.float32)
        return Frame(self.render_all() if render else {}, state)

    def render_all(self) -> dict[str, np.ndarray]:
        assert self.metadata.image_sizes is not None
        if self._on_demand:
            images = self._env.unwrapped.pictures()  # pyright: ignore[reportAttributeAccessIssue]
            for name, size in self.metadata.image_sizes.items():
                check_image(images[name], size, f"{name} of {self._task}")
            return dict(images)
        if not self._renders:
            return self._layout.images(self._observation)
        image = np.array(self._env.render())
        check_image(image, self.metadata.image_sizes[FRONT_CAMERA], f"render() of {self._task}")
        return {FRONT_CAMERA: image}

    def close(self) -> None:
        self._env.close()
