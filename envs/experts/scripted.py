"""Experts as programs: generators that yield one motion per step and read the true poses of that step."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from envs.config import EnvConfig
from envs.registry import PrivilegedEnv


class World:
    """The task as a program sees it: `world["cube_pos"]` is the pose in the current step, so it changes at a `yield`.

    The names of the poses are those of `PrivilegedEnv.privileged`.
    """

    def __init__(self, config: EnvConfig, start: dict[str, np.ndarray]) -> None:
        self.config = config
        self.start = start
        """The poses at the start of the episode."""
        self.poses = start
        """The poses in the current step."""

    def __getitem__(self, pose: str) -> np.ndarray:
        return self.poses[pose]


Motions = Iterator[np.ndarray]
"""Motions (a,), float32, one for each step; see `envs.experts.motions`."""

Program = Callable[[World], Motions]
"""One attempt at a task. It may end, when an object has slipped, say: another attempt follows."""


class ScriptedExpert:
    """Runs a program; see `envs.experts.registry.Expert` for the interface."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def reset(self, env: PrivilegedEnv, rng: np.random.Generator) -> None:
        del rng
        self._world = World(env.config, env.privileged())
        self._motions = self._attempts(self._world)

    def act(self, env: PrivilegedEnv) -> np.ndarray:
        self._world.poses = env.privileged()
        return next(self._motions)

    def _attempts(self, world: World) -> Motions:
        while True:
            yield from self._program(world)
