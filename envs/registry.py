"""Builds environments from their configuration."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from envs.config import Engine, EnvConfig
from envs.simulator_imports import load_mujoco
from envs.tasks import THIRD_PARTY, Simulator
from pixio_robot.errors import UserError
from pixio_robot.types import DemoSpec, Frame, StepResult


class PrivilegedEnv(Protocol):
    """The part of an environment that experts use."""

    @property
    def spec(self) -> DemoSpec: ...

    @property
    def config(self) -> EnvConfig: ...

    def privileged(self) -> dict[str, np.ndarray]:
        """Object poses for experts and probes, not for policies: `<name>_pos` (3,) m and `<name>_mat` (3, 3)."""
        ...


class Environment(PrivilegedEnv, Protocol):
    """One simulated task, stepped by one process."""

    spec: DemoSpec
    config: EnvConfig

    def reset(self, seed: int, render: bool = True) -> Frame:
        """Start the episode with that seed: the same seed gives the same episode, bit for bit."""
        ...

    def step(self, action: np.ndarray, render: bool = True) -> StepResult:
        """One control step with action (a,), clipped to its bounds. Without `render`, `frame.images` is empty."""
        ...

    def render(self, camera: str | None = None) -> np.ndarray:
        """The current image of a camera (None: the first one): uint8 (h, w, 3)."""
        ...

    def render_depth(self, camera: str | None = None) -> np.ndarray:
        """Distance along the camera's axis: float32 (h, w), metres."""
        ...

    def render_segmentation(self, camera: str | None = None) -> np.ndarray:
        """The class of each pixel, as an index into `segmentation_names()`: int32 (h, w)."""
        ...

    def segmentation_names(self) -> list[str]:
        """The classes: `background`, `surface`, `robot`, then the task's objects."""
        ...

    def camera_pose(self, camera: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) m and rotation (3, 3) in the world; the camera looks along its -z with y up."""
        ...

    def get_state(self) -> np.ndarray:
        """Time, joint positions and velocities: float64, in the layout of robomimic's `states`."""
        ...

    def reset_to(self, state: np.ndarray, render: bool = True) -> Frame:
        """Restore a state of this task's model, with newly reset controllers; the step count starts at 0.

        Appearance, and task settings that are not part of the state, are those of the last `reset`. Raises UserError
        for a state of another length.
        """
        ...

    def close(self) -> None: ...


def make_env(config: EnvConfig) -> Environment:
    """Build the environment. Raises UserError if the simulator cannot run on this machine."""
    if config.engine is Engine.WARP:
        raise UserError("engine=warp is only supported by evaluate and collect; use engine=mujoco here.")
    load_mujoco()
    if config.simulator is Simulator.TABLETOP:
        from envs.tabletop.env import TabletopEnv

        return TabletopEnv(config)
    if config.simulator is Simulator.METAWORLD:
        from envs.metaworld_env import MetaworldEnv

        return MetaworldEnv(config)
    if config.simulator is Simulator.ROBOMIMIC:
        from envs.robomimic.env import RobomimicEnv

        return RobomimicEnv(config)
    if config.simulator in THIRD_PARTY:
        return _make_third_party_env(config)
    from envs.robosuite.env import RobosuiteEnv

    return RobosuiteEnv(config)


def _make_third_party_env(config: EnvConfig) -> Environment:
    from envs.third_party.base import ThirdPartyImageEnv, open_third_party_env

    env = open_third_party_env(config)
    try:
        if isinstance(env, ThirdPartyImageEnv):
            from envs.third_party.image_env import ImageEnvAdapter

            return ImageEnvAdapter(config, env)
        from envs.third_party.mujoco_env import MujocoEnvAdapter

        return MujocoEnvAdapter(config, env)
    except BaseException:
        env.close()
        raise


_environments: dict[str, Environment] = {}


def cached_env(config: EnvConfig) -> Environment:
    """This process's environment for the configuration, built once."""
    key = repr(config)
    if key not in _environments:
        _environments[key] = make_env(config)
    return _environments[key]
