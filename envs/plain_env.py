"""A foreign environment without a MuJoCo model behind the contract of our own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from envs.checked import finite_vector
from envs.config import EnvConfig
from envs.foreign import ForeignPlain
from envs.foreign_spec import foreign_spec
from envs.seeding import OwnGenerators
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.types import Frame, StepResult


def _lacking(what: str) -> Callable[..., NoReturn]:
    def refuse(self: PlainEnv, *_: Any, **__: Any) -> NoReturn:
        raise UserError(f"task={self.config.task} has no MuJoCo model of its own to ask for {what}.")

    return refuse


class PlainEnv:
    """See `Environment` for the contract. It shows what the environment shows, at the environment's own sizes.

    An episode ends when the environment says so or at the horizon. What only a simulator knows (depth, segmentation,
    poses, states to go on from) is refused.
    """

    def __init__(self, config: EnvConfig, foreign: ForeignPlain) -> None:
        self.config, self._foreign = config, foreign
        self.spec = foreign_spec(config, foreign.facts)
        self._generators = OwnGenerators()
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
        self._done = over or self._steps >= self.config.steps
        return StepResult(self._shown(frame), reward, success, self._done)

    def _looks(self, render: bool) -> bool:
        """Nothing is drawn where no camera is wanted; where drawing fails that is the way to play."""
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
    reset_to = _lacking("a state to go on from")

    def close(self) -> None:
        self._foreign.close()
