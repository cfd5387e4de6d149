"""Translates a robomimic file's description of its environment to the installed version of robosuite.

robomimic stores the keyword arguments of `robosuite.make`. Up to robosuite 1.4, `controller_configs` described one arm
(`control_delta`, poses in the world frame); since 1.5 it describes the whole body part by part (`input_type`,
`input_ref_frame`). Other keywords were added and removed.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

from envs.seeding import global_seed
from envs.simulator_imports import load_robosuite
from pixio_robot.errors import UserError, unknown_name

_ARM_CONTROLLERS = ("JOINT_VELOCITY", "JOINT_TORQUE", "JOINT_POSITION", "OSC_POSITION", "OSC_POSE")
_CARTESIAN = ("OSC_POSITION", "OSC_POSE")
_RENAMED_KEYS = {"damping": "damping_ratio", "damping_limits": "damping_ratio_limits"}
_WITHOUT_RENDERING = {
    "has_renderer": False,
    "has_offscreen_renderer": False,
    "use_camera_obs": False,
    "use_object_obs": False,
    "ignore_done": True,
}
_RENDER_KEYWORDS = ("render", "camera", "renderer", "visualize")
"""Prefixes of keywords that concern only rendering, not the simulation."""


@dataclasses.dataclass(frozen=True)
class RobosuiteTask:
    """`robosuite.make(name, **arguments)` for the installed version, without rendering.

    `unsupported_keywords`: keywords of the file that this version does not support, except those for rendering.
    """

    name: str
    arguments: dict[str, Any]
    unsupported_keywords: tuple[str, ...]


def translate_env_args(env_args: Mapping[str, Any]) -> RobosuiteTask:
    """Translate env_args. Raises UserError if the environment is not robosuite's, or not supported by this version."""
    load_robosuite()
    from robosuite.environments.base import REGISTERED_ENVS

    name, arguments = env_args.get("env_name"), env_args.get("env_kwargs")
    if not isinstance(name, str) or not isinstance(arguments, Mapping) or "robots" not in arguments:
        raise UserError("The file's env_args lack a robosuite task or robots, so it cannot be replayed.")
    if name not in REGISTERED_ENVS:
        raise unknown_name("robosuite task", name, REGISTERED_ENVS)
    arguments = {str(key): copy.deepcopy(value) for key, value in arguments.items()}
    controllers = arguments.pop("controller_configs", None)
    if controllers is not None:
        arguments["controller_configs"] = _upgrade_controllers(controllers, arguments["robots"])
        if _is_arm_controller(controllers[0] if isinstance(controllers, list) else controllers):
            # By default, robosuite 1.5 skips part of each physics step's computations, unlike earlier versions.
            arguments.setdefault("lite_physics", False)
    known = _accepted_keywords(REGISTERED_ENVS[name])
    # Keywords left at their defaults are no loss.
    unsupported_keywords = tuple(
        key
        for key, value in arguments.items()
        if key not in known and value != "default" and not key.startswith(_RENDER_KEYWORDS)
    )
    kept = {key: value for key, value in arguments.items() if key in known and not key.startswith(_RENDER_KEYWORDS)}
    return RobosuiteTask(name, kept | _WITHOUT_RENDERING, unsupported_keywords)


def make_robosuite_env(task: RobosuiteTask) -> Any:
    """Build robosuite's environment. Raises UserError if the installed robosuite cannot build it."""
    import robosuite

    with global_seed(0):
        try:
            return robosuite.make(task.name, **task.arguments)
        except (AssertionError, KeyError, NotImplementedError, TypeError, ValueError) as error:
            raise UserError(
                f"robosuite {robosuite.__version__} cannot build {task.name} from the file's env_args: "
                f"{type(error).__name__}: {error}."
            ) from error


def with_absolute_actions(task: RobosuiteTask, in_world: bool) -> RobosuiteTask:
    """The same task with absolute poses as actions. `in_world`: in the world frame, whatever the controllers' own is;
    robomimic's `actions_abs` are in theirs."""
    from robosuite.controllers import load_composite_controller_config

    arguments = copy.deepcopy(task.arguments)
    robots = arguments["robots"]
    names = [robots] if isinstance(robots, str) else list(robots)
    configs: Any = arguments.get("controller_configs")
    each: list[Any] = configs if isinstance(configs, list) else [copy.deepcopy(configs) for _ in names]
    each = [config or load_composite_controller_config(robot=name) for config, name in zip(each, names, strict=True)]
    for config in each:
        parts = config["body_parts"]
        for arm in parts.get("arms", parts).values():
            if arm.get("type") in _CARTESIAN and arm.get("input_type") != "absolute":
                arm |= {"input_type": "absolute"} | ({"input_ref_frame": "world"} if in_world else {})
    return dataclasses.replace(task, arguments=arguments | {"controller_configs": each})


def _accepted_keywords(task: type) -> set[str]:
    """Keywords that the class accepts: its own, and those of its parents if it forwards **kwargs."""
    names: set[str] = set()
    for ancestor in task.__mro__:
        if "__init__" not in vars(ancestor):
            continue
        parameters = inspect.signature(vars(ancestor)["__init__"]).parameters.values()
        names |= {parameter.name for parameter in parameters}
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return names


def _is_arm_controller(controller: Any) -> bool:
    return isinstance(controller, Mapping) and "body_parts" not in controller


def _upgrade_controllers(controllers: Any, robots: str | list[str]) -> Any:
    """The controllers for robosuite 1.5: one for all robots, or a list with one for each."""
    names = [robots] if isinstance(robots, str) else list(robots)
    if isinstance(controllers, list):
        if len(controllers) != len(names):
            raise UserError(f"env_args have {len(controllers)} controller_configs, but {len(names)} robots.")
        return [_composite_controller(part, robot) for part, robot in zip(controllers, names, strict=True)]
    return _composite_controller(controllers, names[0])


def _composite_controller(controller: Any, robot: str) -> Any:
    """A controller in the format of robosuite 1.5, from one of any version."""
    from robosuite.controllers.composite.composite_controller_factory import refactor_composite_controller_config
    from robosuite.models.robots.robot_model import REGISTERED_ROBOTS

    if not _is_arm_controller(controller):
        return controller
    if robot not in REGISTERED_ROBOTS:
        raise unknown_name("robosuite robot", robot, REGISTERED_ROBOTS)
    return refactor_composite_controller_config(
        _upgrade_arm_controller(controller), robot, REGISTERED_ROBOTS[robot]().arms
    )


def _upgrade_arm_controller(part: Mapping[str, Any]) -> dict[str, Any]:
    """An arm controller of robosuite up to 1.4 in the format of 1.5. Raises UserError for features that 1.5 lacks."""
    kind = part.get("type")
    if kind not in _ARM_CONTROLLERS:
        raise UserError(
            f"env_args use the controller {kind!r}, which has no counterpart in robosuite 1.5; supported are "
            f"{', '.join(_ARM_CONTROLLERS)}."
        )
    for limits in ("position_limits", "orientation_limits"):
        if part.get(limits) is not None:
            raise UserError(f"env_args set {limits} of {kind}, which robosuite 1.5 does not implement.")
    arm = {_RENAMED_KEYS.get(key, key): copy.deepcopy(value) for key, value in part.items() if key != "control_delta"}
    arm["input_type"] = "delta" if part.get("control_delta", True) else "absolute"
    if kind in _CARTESIAN:
        arm["input_ref_frame"] = "world"
    return {"interpolation": None, "ramp_ratio": 0.2} | arm
