"""A third-party environment without a MuJoCo model, with the interface of our own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from envs.config import EnvConfig
from envs.seeding import IsolatedGenerators
from envs.spec import max_episode_steps
from envs.third_party.base import ThirdPartyImageEnv
from envs.third_party.spec import third_party_spec
from envs.validation import check_step
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.types import Frame, StepResult


def _unsupported(what: str) -> Callable[..., NoReturn]:
    def refuse(self: ImageEnvAdapter, *_: Any, **__: Any) -> NoReturn:
        raise UserError(f"task={self.config.task} has no MuJoCo model, so it cannot provide {what}.")

    return refuse


class ImageEnvAdapter:
    """See `Environment` for the interface. Provides the environment's own images, at their own sizes.

    An episode ends when the environment reports it, or at the horizon. Methods that need a simulator (depth,
    segmentation, poses, saving and restoring states) raise UserError.
    """

    def __init__(self, config: EnvConfig, env: ThirdPartyImageEnv) -> None:
        self.config, self._env = config, env
        self.spec = third_party_spec(config, env.metadata)
        self._generators = IsolatedGenerators()
        self._horizon = max_episode_steps(config)
        self._steps, self._done = 0, True

    def reset(self, seed: int, render: bool = True) -> Frame:
        with self._generators.reset(seed):
            frame = self._env.reset(seed, self._should_render(render))
        self._steps, self._done = 0, False
        return self._select_cameras(frame)

    def step(self, action: np.ndarray, render: bool = True) -> StepResult:
        action = check_step(self._done, action, self.spec.action_dim)
        if self.config.clip_actions:
            action = np.clip(action, self._env.metadata.low, self._env.metadata.high)
        with self._generators.activated():
            frame, reward, success, over = self._env.step(action, self._should_render(render))
        self._steps += 1
        self._done = over or self._steps >= self._horizon
        return StepResult(self._select_cameras(frame), reward, success, self._done)

    def _should_render(self, render: bool) -> bool:
        """Whether to render. Without cameras nothing is rendered, so environments that cannot render work too."""
        return render and bool(self.spec.cameras)

    def _select_cameras(self, frame: Frame) -> Frame:
        return Frame({name: frame.images[name] for name in self.spec.cameras if frame.images}, frame.state)

    def render(self, camera: str | None = None) -> np.ndarray:
        name = camera or next(iter(self.spec.cameras), "")
        if name not in self.spec.cameras:
            raise unknown_name("camera", name, self.spec.cameras)
        return self._env.render_all()[name]

    render_depth = _unsupported("depth")
    render_segmentation = _unsupported("segmentation")
    segmentation_names = _unsupported("segmentation")
    camera_pose = _unsupported("the pose of a camera")
    privileged = _unsupported("the poses of objects")
    get_state = _unsupported("its state")
    reset_to = _unsupported("restoring of states")

    def close(self) -> None:
        self._env.close()
