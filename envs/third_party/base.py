"""Third-party environments, and the information needed to run them here.

`task=gymnasium:<id>` is any environment of Gymnasium, of gymnasium-robotics or of a package of your own
(`gymnasium:my_package:MyTask-v0` imports `my_package` first); `task=dm_control:<domain>/<task>` is one of the
dm_control suite, `task=libero:<suite>/<number>` one of LIBERO. Environments with a MuJoCo model are rendered here
(`ThirdPartyMujocoEnv`); others provide their own images (`ThirdPartyImageEnv`), as do all that run in a Python of
their own (`EnvConfig.python`). To support another family, add a class and one line in `open_third_party_env`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from envs.seeding import global_seed
from envs.tasks import Simulator, name_in_simulator
from pixio_robot.errors import UserError
from pixio_robot.types import OF_THE_TASK, Frame

if TYPE_CHECKING:
    from envs.config import EnvConfig


FRONT_CAMERA = "front"
"""The default camera: MuJoCo's free camera, or the output of `render()`."""


class SimulatorProcessDied(UserError):
    """The process that simulates an environment has ended: a new one can play the episode again."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnvMetadata:
    """Properties of a third-party environment. low, high (a,): bounds of the action. control_hz: steps per second."""

    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    low: np.ndarray
    high: np.ndarray
    control_hz: float | None
    """None: not specified."""
    versions: tuple[str, ...]
    """The packages it comes from, with their versions."""
    horizon: int | None = None
    """Its own limit of control steps."""
    instruction: str = ""
    """What it asks the robot to do, in words."""
    robot: str = OF_THE_TASK
    controller: str = OF_THE_TASK
    image_sizes: Mapping[str, tuple[int, int]] | None = None
    """Height and width of each image that it provides itself; None if MuJoCo renders."""
    render_error: str = ""
    """Why it cannot render although it claims to support it."""
    unsupported_parts: tuple[str, ...] = ()
    """Parts of its observation that are neither colour images nor vectors."""
    initial_states: int | None = None
    """How many there are; seeds that agree modulo this number begin with the same one. None: as many as seeds."""
    deterministic: bool = True
    """False if it declares itself nondeterministic: a seed does not determine the episode."""


class ThirdPartyMujocoEnv(Protocol):
    """A third-party environment whose MuJoCo model is rendered here."""

    metadata: EnvMetadata

    @property
    def model(self) -> Any: ...

    @property
    def data(self) -> Any: ...

    @property
    def view(self) -> Mapping[str, Any]:
        """Attributes of `mujoco.MjvCamera` for the camera `front` that differ from MuJoCo's defaults, after a reset."""
        ...

    def reset(self, seed: int) -> np.ndarray:
        """Start the episode with that seed; returns the state (s,)."""
        ...

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        """(state, reward, success as reported by the environment, whether the episode is over)."""
        ...

    def on_state_restored(self) -> np.ndarray:
        """Called when the model's data were set from outside, where an episode begins; returns the state (s,)."""
        ...

    def show_goal(self) -> None:
        """Called before an image is rendered, for marks of the goal that are not part of the simulation. May change the
        simulation's state, which is then set back."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class ThirdPartyImageEnv(Protocol):
    """A third-party environment that provides its own images. `render`: whether images are needed."""

    metadata: EnvMetadata

    def reset(self, seed: int, render: bool) -> Frame: ...

    def step(self, action: np.ndarray, render: bool) -> tuple[Frame, float, bool, bool]:
        """As `ThirdPartyMujocoEnv.step`, with a frame in place of the state."""
        ...

    def render_all(self) -> Mapping[str, np.ndarray]:
        """All current images, uint8 (h, w, 3) each."""
        ...

    def close(self) -> None: ...


def open_third_party_env(config: EnvConfig) -> ThirdPartyMujocoEnv | ThirdPartyImageEnv:
    """Build the environment. Raises UserError if its package is missing or does not know it."""
    try:
        with global_seed(0):  # random draws during construction must be the same in every process
            if config.python:
                from envs.third_party.hosted import open_hosted_env

                return open_hosted_env(config)
            if config.simulator is Simulator.GYMNASIUM:
                from envs.third_party.gymnasium import open_gymnasium_env

                return open_gymnasium_env(name_in_simulator(config.task), config.make)
            from envs.third_party.dm_control import DmControl

            return DmControl(name_in_simulator(config.task))
    except ImportError as error:
        raise UserError(f"task={config.task} needs a package that cannot be imported ({error}): install it.") from error


_metadata_cache: dict[str, EnvMetadata] = {}


def get_env_metadata(config: EnvConfig) -> EnvMetadata:
    """Only the metadata, from an environment that is built for this purpose once per process, and then closed."""
    key = json.dumps([config.task, config.make, config.python, config.horizon], sort_keys=True)
    if key not in _metadata_cache:
        env = open_third_party_env(config)
        _metadata_cache[key] = env.metadata
        env.close()
    return _metadata_cache[key]
