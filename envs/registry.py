"""The way in: an environment from its configuration, and what it will show without building it."""

from __future__ import annotations

import importlib.metadata
from typing import Any, Protocol

import numpy as np

from envs.config import TASKS, EnvConfig
from pixio_robot.types import CameraSpec, DemoSpec, Frame, StepResult

STATE_NAMES = (
    *(f"eef_pos.{axis} [m]" for axis in "xyz"),
    # The first two columns of the rotation matrix: continuous, unlike a quaternion (Zhou et al. 2019).
    *(f"eef_rot6d.{column}{axis} [1]" for column in "xy" for axis in "xyz"),
    *(f"gripper.finger{finger} [m]" for finger in (1, 2)),
)
ACTION_NAMES = (
    *(f"eef_delta_pos.{axis} [0.05 m]" for axis in "xyz"),
    *(f"eef_delta_axis_angle.{axis} [0.5 rad]" for axis in "xyz"),
    "gripper [-1 opens, 1 closes]",
)
FRONT_FOV_Y = 25.0
HAND_FOV_Y = 75.0


class Environment(Protocol):
    """One simulated task, stepped by one process."""

    spec: DemoSpec
    config: EnvConfig

    def reset(self, seed: int, render: bool = True) -> Frame:
        """Start the episode of that seed: the same seed gives the same episode, bit for bit."""
        ...

    def step(self, action: np.ndarray, render: bool = True) -> StepResult:
        """One control step with action (7,) in [-1, 1]. `frame.images` is empty where `render` is False."""
        ...

    def render(self, camera: str | None = None) -> np.ndarray:
        """What a camera (the first where None) sees now: uint8 (h, w, 3)."""
        ...

    def privileged(self) -> dict[str, np.ndarray]:
        """Poses no policy may see, for experts: object -> `<name>_pos` (3,) m and `<name>_mat` (3, 3)."""
        ...

    def close(self) -> None: ...


def spec_of(config: EnvConfig) -> DemoSpec:
    """What environments of that configuration mean by their numbers; starts no simulator."""
    fov = {"front": FRONT_FOV_Y, "hand": HAND_FOV_Y}
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("robosuite", "mujoco")]
    return DemoSpec(
        task=config.task,
        robot=config.robot,
        simulator="robosuite",
        simulator_version=", ".join(versions),
        controller=f"{config.controller} delta",
        control_hz=float(config.control_hz),
        cameras={
            name: CameraSpec(height=config.image_size, width=config.image_size, fov_y_degrees=fov[name])
            for name in config.cameras
        },
        state_names=STATE_NAMES,
        action_names=ACTION_NAMES,
        render_quality=config.render_quality.value,
        source=f"simulated: variation {config.variation.value}, start_spread {config.start_spread} m",
    )


def make_env(config: EnvConfig) -> Environment:
    """Build the environment. Raises UserError where the simulator cannot run on this machine."""
    from envs.robosuite_env import RobosuiteEnv

    return RobosuiteEnv(config)


_environments: dict[str, Environment] = {}


def environment_of_process(config: EnvConfig) -> Environment:
    """This process's environment of that configuration, built once."""
    key = repr(config)
    if key not in _environments:
        _environments[key] = make_env(config)
    return _environments[key]


def register_gymnasium() -> None:
    """Register `pixio_robot/Lift-v0` and `pixio_robot/Stack-v0`; importing `envs` does it too."""
    import gymnasium

    for task in TASKS:
        name = f"pixio_robot/{task}-v0"
        if name not in gymnasium.registry:
            kwargs: dict[str, Any] = {"task": task}
            gymnasium.register(name, entry_point="envs.gymnasium_env:GymnasiumEnv", kwargs=kwargs)
