"""A third-party environment without a MuJoCo model, with the interface of our own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from envs.config import EnvConfig
from envs.seeding import OwnGenerators
from envs.third_party.base import ForeignPlain
from envs.third_party.spec import foreign_spec
from envs.validation import finite_vector
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.types import Frame, StepResult


def _lacking(what: str) -> Callable[..., NoReturn]:
    def refuse(self: PlainEnv, *_: Any, **__: Any) -> NoReturn:
        raise UserError(f"task={self.config.task} has no MuJoCo model, so it cannot provide {what}.")

    return refuse


class PlainEnv:
    """See `Environment` for the interface. Provides the environment's own images, at their own sizes.

    An episode ends when the environment reports it, or at the horizon. Methods that need a simulator (depth,
    segmentation, poses, saving and restoring states) raise UserError.
    """

    def __init__(self, config: EnvConfig, foreign: ForeignPlain) -> None:
        self.config, self._foreign = config, foreign
        self.spec = foreign_spec(config, foreign.facts)
        self._generators = OwnGenerators()
        self._horizon = config.steps
        self._steps, self._done = 0, True

    def reset(self, seed: int, render: bool = True) -> Frame:
        with self._generators.reset(seed):
            frame = self._foreign.reset(seed, self._looks(render))
        self._steps, self._done = 0, False
        return self._shown(frame)

    def step(self, action: np.ndarray, render: bool = True) -> StepResult:
        if self._done:
            raise ValueError("This episode is over (or none was started): call reset first.")
        facts = self._foreign.facts
        action = np.clip(finite_vector(action, self.spec.action_dim, "The action"), facts.low, facts.high)
        with self._generators.held():
            frame, reward, success, over = self._foreign.step(action, self._looks(render))
        self._steps += 1
        self._done = over or self._steps >= self._horizon
        return StepResult(self._shown(frame), reward, success, self._done)

    def _looks(self, render: bool) -> bool:
        """Whether to render. Without cameras nothing is rendered, so environments that cannot render work too."""
        return render and bool(self.spec.cameras)

    def _shown(self, frame: Frame) -> Frame:
        return Frame({name: frame.images[name] for name in self.spec.cameras if frame.images}, frame.state)

    def render(self, camera: str | None = None) -> np.ndarray:
        name = camera or next(iter(self.spec.cameras), "")
        if name not in self.spec.cameras:
            raise unknown_name("camera", name, self.spec.cameras)
        return self._foreign.shown()[name]

    render_depth = _lacking("depth")
    render_segmentation = _lacking("segmentation")
    segmentation_names = _lacking("segmentation")
    camera_pose = _lacking("the pose of a camera")
    privileged = _lacking("the poses of objects")
    get_state = _lacking("its state")
    reset_to = _lacking("restoring of states")

    def close(self) -> None:
        self._foreign.close()
