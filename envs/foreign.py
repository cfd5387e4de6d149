"""Other people's MuJoCo environments: what they must tell of themselves to be run here.

`task=gymnasium:<id>` is any MuJoCo environment of Gymnasium, of gymnasium-robotics or of a package of your own
(`gymnasium:my_package:MyTask-v0` imports `my_package` first); `task=dm_control:<domain>/<task>` is one of the
dm_control suite. A third family is one more `Foreign` class and one line in `build_foreign`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from envs.tasks import Simulator, foreign_name, task_of
from pixio_robot.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What a foreign environment's numbers are: low, high (a,) bound its action, control_hz is in steps a second."""

    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    low: np.ndarray
    high: np.ndarray
    control_hz: float
    versions: tuple[str, ...]
    """Names of the packages that it comes from, as they are imported or as they are installed."""


class Foreign(Protocol):
    """One foreign environment."""

    facts: Facts
    view: Mapping[str, Any]
    """Attributes of `mujoco.MjvCamera` for the view called `front`, where they differ from MuJoCo's default."""

    @property
    def model(self) -> Any: ...

    @property
    def data(self) -> Any: ...

    def reset(self, seed: int) -> np.ndarray:
        """Start the episode of that seed; the state (s,)."""
        ...

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        """State, reward, whether the task is done by the environment's own word, and whether the episode is over."""
        ...

    def observe(self) -> np.ndarray:
        """The state (s,) as the model's data has it now."""
        ...

    def close(self) -> None: ...


def build_foreign(task: str) -> Foreign:
    """The environment. Raises UserError where its package is missing or does not know it."""
    simulator, name = task_of(task).simulator, foreign_name(task)
    try:
        if simulator is Simulator.GYMNASIUM:
            from envs.foreign_gymnasium import GymnasiumMujoco

            return GymnasiumMujoco(name)
        from envs.foreign_dm_control import DmControl

        return DmControl(name)
    except ImportError as error:
        raise UserError(f"task={task} needs a package that is not installed ({error}).") from error


@functools.cache
def facts_of(task: str) -> Facts:
    """The facts alone, from an environment that is built for them and closed."""
    foreign = build_foreign(task)
    try:
        return foreign.facts
    finally:
        foreign.close()
