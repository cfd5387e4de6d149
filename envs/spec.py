"""The DemoSpec and action bounds of a configuration; starts no simulator, except for third-party tasks."""

from __future__ import annotations

import dataclasses
import importlib.metadata

import numpy as np

from envs.config import Controller, Engine, EnvConfig
from envs.robomimic.task import REACH_M, action_limits, load_recorded_env
from envs.tasks import THIRD_PARTY, Simulator, get_task
from pixio_robot.errors import UserError
from pixio_robot.types import SIMULATED, CameraSpec, DemoSpec

HAND_FOV_Y = 75.0
_ROBOSUITE_FOV_Y = 45.0


def _pose_columns(of: str) -> tuple[str, ...]:
    return (
        *(f"{of}_pos.{axis} [m]" for axis in "xyz"),
        # The first two columns of the rotation matrix: continuous, unlike a quaternion (Zhou et al. 2019).
        *(f"{of}_rot6d.{column}{axis} [1]" for column in "xy" for axis in "xyz"),
    )


_EEF_POSE = _pose_columns("eef")
_TWO_FINGERS = tuple(f"gripper.finger{finger} [m]" for finger in (1, 2))
_GRIPPERS = {
    "Panda": _TWO_FINGERS,
    "Sawyer": _TWO_FINGERS,
    "UR5e": tuple(f"gripper.joint{joint} [rad]" for joint in range(1, 7)),  # Robotiq 85
}
_ARM_JOINTS = {"Panda": 7, "Sawyer": 7, "UR5e": 6}
_GRIPPER_ACTION = "gripper [-1 opens, 1 closes]"
_DELTA_POS = tuple(f"eef_delta_pos.{axis} [0.05 m]" for axis in "xyz")

_CONTROLLER_NAMES = {
    Controller.OSC_POSE: "OSC_POSE delta",
    Controller.OSC_POSE_ABSOLUTE: "OSC_POSE absolute",
    Controller.JOINT_POSITION: "JOINT_POSITION delta",
}
_ABSOLUTE_REACH = (*[REACH_M] * 3, *[2 * np.pi] * 3)
"""Rotation vectors may have an angle of up to a full turn."""


def _arm_actions(config: EnvConfig) -> tuple[str, ...]:
    if config.controller is Controller.JOINT_POSITION:
        return tuple(f"joint{joint}_delta [0.05 rad]" for joint in range(1, _ARM_JOINTS[config.robot] + 1))
    if config.controller is Controller.OSC_POSE_ABSOLUTE:
        return (*(f"eef_pos.{axis} [m]" for axis in "xyz"), *(f"eef_axis_angle.{axis} [rad]" for axis in "xyz"))
    return (*_DELTA_POS, *(f"eef_delta_axis_angle.{axis} [0.5 rad]" for axis in "xyz"))


def object_names(task: str) -> tuple[str, ...]:
    """The columns that `object_state` adds to the state: the pose of each object in the world."""
    return tuple(column for name in get_task(task).bodies for column in _pose_columns(name))


def action_bounds(config: EnvConfig) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest action, float64 (a,) each; random actions lie between them. Environments clip actions to them,
    but those of a robomimic file only absolute poses."""
    if config.simulator in THIRD_PARTY:
        from envs.third_party.base import get_env_metadata

        metadata = get_env_metadata(config)
        return metadata.low.copy(), metadata.high.copy()
    if config.simulator is Simulator.ROBOMIMIC:
        high = action_limits(make_env_spec(config).action_names)
        return -high, high
    high = np.ones(make_env_spec(config).action_dim)
    if config.controller is Controller.OSC_POSE_ABSOLUTE:
        high[:6] = _ABSOLUTE_REACH
    return -high, high


_EXTRAS = {"mujoco-warp": "warp"}


def _installed_versions(*names: str) -> str:
    try:
        return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    except importlib.metadata.PackageNotFoundError as error:
        extra = _EXTRAS.get(str(error.name), error.name)
        raise UserError(f"{error.name} is not installed: pip install 'pixio-robot[{extra}]'.") from error


def _robomimic_spec(config: EnvConfig) -> DemoSpec:
    """The DemoSpec of the demonstrations, which a policy trained on them requires."""
    recorded = load_recorded_env(config.task)
    spec = recorded.spec
    horizon = "" if config.horizon is None else f", horizon {config.horizon}"
    return dataclasses.replace(
        spec,
        simulator_version=_installed_versions("robosuite", "mujoco"),
        cameras={name: spec.cameras[name] for name in config.cameras},
        source=f"{SIMULATED}env_args {recorded.fingerprint}{horizon}",
        licence="",
    )


def make_env_spec(config: EnvConfig) -> DemoSpec:
    """The DemoSpec of `make_env(config)`. Raises UserError if an extra is missing."""
    if config.simulator is Simulator.ROBOMIMIC:
        return _robomimic_spec(config)
    if config.simulator in THIRD_PARTY:
        from envs.third_party.base import get_env_metadata
        from envs.third_party.spec import third_party_spec

        return third_party_spec(config, get_env_metadata(config))
    fov = {"front": get_task(config.task).view.fov_y, "hand": HAND_FOV_Y}
    robot, controller, hz = config.robot, _CONTROLLER_NAMES[config.controller], float(config.control_hz)
    if config.simulator is Simulator.ROBOSUITE:
        # The arm in Wipe holds an eraser instead of a gripper.
        grips = config.task != "Wipe"
        versions = _installed_versions("robosuite", "mujoco")
        state = (*_EEF_POSE, *(_GRIPPERS[config.robot] if grips else ()))
        actions = (*_arm_actions(config), *((_GRIPPER_ACTION,) if grips else ()))
    elif config.simulator is Simulator.TABLETOP:
        robot, controller, versions = "floating gripper", "mocap position delta", _installed_versions("mujoco")
        state = (*(f"eef_pos.{axis} [m]" for axis in "xyz"), *_TWO_FINGERS)
        actions = (*(f"eef_delta_pos.{axis} [0.02 m]" for axis in "xyz"), _GRIPPER_ACTION)
    else:
        robot, controller, hz, versions = (
            "Sawyer",
            "mocap position delta",
            80.0,
            _installed_versions("metaworld", "mujoco"),
        )
        state = (*(f"eef_pos.{axis} [m]" for axis in "xyz"), "gripper.opening [1]")
        actions = (*(f"eef_delta_pos.{axis} [0.01 m]" for axis in "xyz"), _GRIPPER_ACTION)
    if config.object_state:
        state += object_names(config.task)
    simulator, look = config.simulator.value, config.render_quality.value
    if config.engine is Engine.WARP:
        simulator, versions = "mujoco_warp", _installed_versions("mujoco-warp", "mujoco")
        if config.cameras:
            look = f"ray traced, {look}"
    scene = f"variation {config.variation.value}"
    scene += "" if config.look_seed is None else f" of look_seed {config.look_seed}"
    unusual = "" if config.object_scale == EnvConfig.object_scale else f", object_scale {config.object_scale}"
    unusual += "" if config.horizon is None else f", horizon {config.horizon}"
    return DemoSpec(
        task=config.task,
        robot=robot,
        simulator=simulator,
        simulator_version=versions,
        controller=controller,
        control_hz=hz,
        cameras={
            name: CameraSpec(
                height=config.image_size, width=config.image_size, fov_y_degrees=fov.get(name, _ROBOSUITE_FOV_Y)
            )
            for name in config.cameras
        },
        state_names=state,
        action_names=actions,
        render_quality=look,
        source=f"{SIMULATED}{scene}, start_spread {config.start_spread} m{unusual}",
    )
