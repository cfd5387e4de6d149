"""The meaning of the columns of a robomimic file, as far as its `env_args` specify it; starts no simulator.

Names and units match those of our own robosuite environments wherever the meaning is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pixio_robot.data.actions.named_columns import column_names
from pixio_robot.interop.robomimic.hdf5_file import GYM, ROBOSUITE
from pixio_robot.types import UNKNOWN

ABSOLUTE_ACTIONS = "actions_abs"
"""robomimic's second action dataset: poses instead of the deltas in `actions`, in the frame of the controller: that of
the robot's base in files of robosuite 1.5, the world's in earlier ones, whose controllers name no frame."""
_ROBOSUITE_HZ = 20.0
"""robosuite's default control frequency, which its recorder does not store."""
_DELTA_POS, _DELTA_ROT = 0.05, 0.5
"""robosuite's default largest delta, in m and rad, for files that do not specify it."""
_GRIPPER_NAME = "gripper [-1 opens, 1 closes]"
_FINGERS_IN_METRES = ("Panda", "Sawyer", "Baxter")
_CARTESIAN = ("OSC_POSE", "OSC_POSITION")
_DELTA_POSE = "eef_delta_"
_ISAAC = "Isaac-"
"""Prefix of the environments of Isaac Lab, which give their type as Gym."""
ISAAC_LAB = "isaaclab"
_QUATERNION = "quat"
_ONE_ARMED = ("Panda", "Sawyer", "IIWA", "Jaco", "Kinova3", "UR5e", "XArm7")
"""Robots of robosuite and robosuite_models with one arm. robosuite ignores settings of arms that a robot does not have,
such as those in its generic `BASIC` configuration."""


def robot_names(env_args: Mapping[str, Any]) -> list[str]:
    robots = env_kwargs(env_args).get("robots", [])
    return [robots] if isinstance(robots, str) else [str(robot) for robot in robots]


def env_kwargs(env_args: Mapping[str, Any]) -> Mapping[str, Any]:
    kwargs = env_args.get("env_kwargs")
    return kwargs if isinstance(kwargs, Mapping) else {}


def control_hz(env_args: Mapping[str, Any]) -> float | None:
    rate = env_kwargs(env_args).get("control_freq")
    if rate is None and env_args.get("type") == ROBOSUITE:
        return _ROBOSUITE_HZ
    return None if rate is None else float(rate)


def success_reward(env_args: Mapping[str, Any]) -> float:
    """The reward that robosuite's tasks return exactly while they are solved: shaped rewards stay below it. It is their
    `reward_scale`; without one (None), sparse rewards are 1 or more."""
    scale = env_kwargs(env_args).get("reward_scale")
    return float(scale) if isinstance(scale, int | float) and scale > 0 else 1.0


def simulator_name(env_args: Mapping[str, Any]) -> str:
    if env_args.get("type") == GYM and str(env_args.get("env_name", "")).startswith(_ISAAC):
        return ISAAC_LAB
    return {ROBOSUITE: "robosuite", GYM: "gym"}.get(env_args.get("type", 0), UNKNOWN)


def arm_controllers(env_args: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """One part controller per arm, in the order of the action's columns; empty if the file does not specify them."""
    configs, names = env_kwargs(env_args).get("controller_configs"), robot_names(env_args)
    each = configs if isinstance(configs, list) else [configs] * max(1, len(names))
    arms: list[Mapping[str, Any]] = []
    for number, controller in enumerate(each):
        if not isinstance(controller, Mapping):
            return []
        parts = controller.get("body_parts")
        if not isinstance(parts, Mapping):
            arms.append(controller)
            continue
        parts = parts.get("arms", parts)
        arm_parts = [parts[arm] for arm in ("right", "left") if isinstance(parts.get(arm), Mapping)]
        arms += arm_parts[:1] if number < len(names) and names[number] in _ONE_ARMED else arm_parts
    return arms


def _is_absolute(controller: Mapping[str, Any], key: str) -> bool:
    if key == ABSOLUTE_ACTIONS:
        return True
    return controller.get("input_type") == "absolute" or not controller.get("control_delta", True)


def controller_name(env_args: Mapping[str, Any], key: str) -> str:
    """The controller behind the action dataset `key`, such as `OSC_POSE delta`."""
    names = []
    arms = arm_controllers(env_args)
    for controller in arms:
        absolute = _is_absolute(controller, key)
        name = f"{controller.get('type', UNKNOWN)} {'absolute' if absolute else 'delta'}"
        # The base of a single arm is not rotated, so deltas are the same in both frames; two arms may face each other.
        in_base = controller.get("input_ref_frame") == "base"
        if in_base and (absolute or len(arms) > 1):
            name += " in the base's frame"
        names.append(name)
    return " + ".join(dict.fromkeys(names)) or UNKNOWN


def takes_delta_poses(env_args: Mapping[str, Any]) -> bool:
    """Whether the file describes its controllers, and all of them take deltas of a gripper's pose."""
    each = arm_controllers(env_args)
    return bool(each) and all(one.get("type") in _CARTESIAN and not _is_absolute(one, "actions") for one in each)


def action_names(env_args: Mapping[str, Any], key: str, width: int) -> tuple[list[str], bool]:
    """(a name for each of the `width` columns, whether the file specifies their meaning)."""
    each = arm_controllers(env_args)
    numbers = width // max(1, len(each))
    arms = [_arm_names(controller, _is_absolute(controller, key), numbers) for controller in each]
    prefixes = [""] if len(arms) == 1 else [f"arm{number}_" for number in range(len(arms))]
    names = [f"{prefix}{name}" for prefix, arm in zip(prefixes, arms, strict=True) for name in arm]
    return (names, True) if len(names) == width else (column_names("action", (width,)), False)


def _arm_names(controller: Mapping[str, Any], absolute: bool, numbers: int) -> list[str]:
    """Names for an arm with that many columns, the gripper last; empty for controllers not known here."""
    kind = controller.get("type")
    if controller.get("impedance_mode", "fixed") != "fixed":
        return []
    if kind in _CARTESIAN:
        names = _cartesian_names(controller, absolute)
        return [*(names[:3] if kind == "OSC_POSITION" else names), _GRIPPER_NAME]
    if kind == "JOINT_POSITION" and controller.get("input_type") == "absolute":
        return [*(f"joint{joint} [rad]" for joint in range(1, numbers)), _GRIPPER_NAME]
    if kind == "JOINT_POSITION" and not absolute:
        reach = _max_deltas(controller.get("output_max"))[0]
        return [*(f"joint{joint}_delta [{reach:g} rad]" for joint in range(1, numbers)), _GRIPPER_NAME]
    return []


def delta_pose_columns(names: Sequence[str]) -> list[int]:
    """The columns among `action_names` that are deltas of a gripper's pose: -1 to 1, which robosuite clips them to."""
    return [column for column, name in enumerate(names) if _DELTA_POSE in name]


def _cartesian_names(controller: Mapping[str, Any], absolute: bool) -> list[str]:
    if absolute:
        return [*(f"eef_pos.{axis} [m]" for axis in "xyz"), *(f"eef_axis_angle.{axis} [rad]" for axis in "xyz")]
    largest = _max_deltas(controller.get("output_max"))
    return [
        *(f"{_DELTA_POSE}pos.{axis} [{reach:g} m]" for axis, reach in zip("xyz", largest[:3], strict=True)),
        *(f"{_DELTA_POSE}axis_angle.{axis} [{reach:g} rad]" for axis, reach in zip("xyz", largest[3:], strict=True)),
    ]


def _max_deltas(largest: Any) -> list[float]:
    usual = [_DELTA_POS] * 3 + [_DELTA_ROT] * 3
    if isinstance(largest, int | float):
        return [float(largest)] * 6
    if not isinstance(largest, Sequence) or len(largest) < 3:
        return usual
    return ([float(value) for value in largest] + usual[3:])[:6]


def has_unknown_order(env_args: Mapping[str, Any], key: str) -> bool:
    """Whether the observation `key` is a quaternion whose order the file does not tell: Isaac Lab changed it from w, x,
    y, z to x, y, z, w in 2026."""
    return simulator_name(env_args) == ISAAC_LAB and key.endswith(_QUATERNION)


def state_names(env_args: Mapping[str, Any], key: str, shape: Sequence[int]) -> list[str]:
    """Names for the columns of the observation `key`, whose rows have that shape."""
    if has_unknown_order(env_args, key):
        return [f"{key}.{column}" for column in range(int(np.prod(shape, dtype=np.int64)))]
    metres = set(robot_names(env_args)) <= set(_FINGERS_IN_METRES)
    return column_names(key, shape, gripper_unit="m" if metres else "rad")
