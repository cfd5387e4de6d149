"""robomimic's `env_args` for demonstrations that robomimic did not record."""

from __future__ import annotations

import re
from typing import Any

from pixio_robot.interop.robomimic.hdf5_file import GYM, ROBOSUITE
from pixio_robot.types import DemoSpec

_COMMON_SETTINGS: dict[str, Any] = {
    "input_max": 1,
    "input_min": -1,
    "damping_ratio": 1,
    "impedance_mode": "fixed",
    "kp_limits": [0, 300],
    "damping_ratio_limits": [0, 10],
    "interpolation": None,
    "ramp_ratio": 0.2,
    "gripper": {"type": "GRIP"},
}
_OSC_POSE = _COMMON_SETTINGS | {
    "type": "OSC_POSE",
    "output_max": [0.05, 0.05, 0.05, 0.5, 0.5, 0.5],
    "output_min": [-0.05, -0.05, -0.05, -0.5, -0.5, -0.5],
    "kp": 150,
    "position_limits": None,
    "orientation_limits": None,
    "uncouple_pos_ori": True,
}
_ARM_CONTROLLERS: dict[str, dict[str, Any]] = {
    "OSC_POSE delta": _OSC_POSE | {"input_type": "delta", "input_ref_frame": "base"},
    "OSC_POSE absolute": _OSC_POSE | {"input_type": "absolute", "input_ref_frame": "world"},
    "JOINT_POSITION delta": _COMMON_SETTINGS
    | {
        "type": "JOINT_POSITION",
        "input_type": "delta",
        "output_max": 0.05,
        "output_min": -0.05,
        "kp": 50,
        "qpos_limits": None,
    },
}
"""Our controllers -> robosuite 1.5's settings of an arm controller, as used by our environments."""


def env_args_from_spec(spec: DemoSpec) -> tuple[dict[str, Any], list[str]]:
    """(env_args, notes on what they cannot express)."""
    kwargs: dict[str, Any] = {"control_freq": spec.control_hz}
    version = re.search(rf"{re.escape(spec.simulator)} ([\w.]+)", spec.simulator_version)
    notes = ["names and units of actions and state are kept in an attribute that only pixio-robot reads"]
    if spec.simulator == "robosuite":
        kwargs |= {
            "robots": [spec.robot],
            "has_renderer": False,
            "has_offscreen_renderer": bool(spec.cameras),
            "use_camera_obs": bool(spec.cameras),
            "camera_names": list(spec.cameras),
            "camera_heights": [camera.height for camera in spec.cameras.values()],
            "camera_widths": [camera.width for camera in spec.cameras.values()],
            "ignore_done": True,
            "reward_shaping": False,
        }
        if spec.controller in _ARM_CONTROLLERS:
            kwargs["controller_configs"] = {"type": "BASIC", "body_parts": {"right": _ARM_CONTROLLERS[spec.controller]}}
        else:
            notes.append(f"env_args lack the settings of the controller {spec.controller!r}")
        notes.append(
            "env_args describe robosuite's own scene: robomimic can train on this file, but its rollouts look "
            "different and use other cameras than pixio-robot's environments"
        )
    env_args = {
        "env_name": spec.task,
        "env_version": version[1] if version else spec.simulator_version,
        "type": ROBOSUITE if spec.simulator == "robosuite" else GYM,
        "env_kwargs": kwargs,
    }
    return env_args, notes
