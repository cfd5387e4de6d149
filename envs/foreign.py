"""Other people's environments: what they must tell of themselves to be run here.

`task=gymnasium:<id>` is any environment of Gymnasium, of gymnasium-robotics or of a package of your own
(`gymnasium:my_package:MyTask-v0` imports `my_package` first); `task=dm_control:<domain>/<task>` is one of the
dm_control suite. What has a MuJoCo model is drawn here (`ForeignMujoco`); what has none shows what it shows
(`ForeignPlain`). A third family is one more class and one line in `build_foreign`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from envs.seeding import global_seed
from envs.tasks import Simulator, foreign_name, task_of
from pixio_robot.errors import UserError
from pixio_robot.types import Frame

if TYPE_CHECKING:
    from envs.config import EnvConfig


FRONT = "front"
"""The camera that needs no name: MuJoCo's free view of all, or what `render()` shows."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What a foreign environment's numbers are: low, high (a,) bound its action, control_hz is in steps a second."""

    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    low: np.ndarray
    high: np.ndarray
    control_hz: float | None
    """None: it does not say."""
    versions: tuple[str, ...]
    """Names of the packages that it comes from, as they are imported or as they are installed."""
    pictures: Mapping[str, tuple[int, int]] | None = None
    """Height and width of all that it shows by itself; None where MuJoCo draws."""
    blind: str = ""
    """Why it cannot draw, though it says it can."""
    left_out: tuple[str, ...] = ()
    """Parts of its observation that are neither pictures in colour nor vectors."""
    repeats: bool = True
    """False where it says of itself that a seed does not give the same episode again."""


class ForeignMujoco(Protocol):
    """A foreign environment whose MuJoCo model is drawn here."""

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


@runtime_checkable
class ForeignPlain(Protocol):
    """A foreign environment that shows its own pictures. `look`: whether they are wanted."""

    facts: Facts

    def reset(self, seed: int, look: bool) -> Frame: ...

    def step(self, action: np.ndarray, look: bool) -> tuple[Frame, float, bool, bool]:
        """As `ForeignMujoco.step`."""
        ...

    def shown(self) -> Mapping[str, np.ndarray]:
        """All its pictures of now, uint8 (h, w, 3) each."""
        ...

    def close(self) -> None: ...


def build_foreign(config: EnvConfig) -> ForeignMujoco | ForeignPlain:
    """The environment. Raises UserError where its package is missing or does not know it."""
    # What is drawn at random while it is built is the same in every process.
    with global_seed(0):
        return _build(config)


def _build(config: EnvConfig) -> ForeignMujoco | ForeignPlain:
    task, name = config.task, foreign_name(config.task)
    try:
        if task_of(task).simulator is Simulator.GYMNASIUM:
            from envs.foreign_gymnasium import open_gymnasium

            return open_gymnasium(name, config.make)
        from envs.foreign_dm_control import DmControl

        return DmControl(name)
    except ImportError as error:
        raise UserError(f"task={task} needs what cannot be imported ({error}): install it.") from error


_known: dict[str, Facts] = {}


def facts_of(config: EnvConfig) -> Facts:
    """The facts alone, from an environment that is built for them, once in a process, and closed."""
    key = json.dumps([config.task, config.make], sort_keys=True)
    if key not in _known:
        foreign = build_foreign(config)
        _known[key] = foreign.facts
        foreign.close()
    return _known[key]
