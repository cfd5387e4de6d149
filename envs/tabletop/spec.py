"""The DemoSpec of a tabletop task, under MuJoCo or MuJoCo Warp."""

from __future__ import annotations

from typing import Any

from envs.config import Engine, EnvConfig
from envs.seeded_spec import GRIPPER_ACTION, POSITION, TWO_FINGERS, position_deltas, seeded_spec
from pixio_robot.types import DemoSpec

RAY_TRACED = "ray traced, "
"""Precedes the render quality of images from MuJoCo Warp."""


def tabletop_spec(config: EnvConfig) -> DemoSpec:
    engine: dict[str, Any] = {"packages": ("mujoco",)}
    if config.engine is Engine.WARP:
        look = f"{RAY_TRACED}{config.render_quality.value}" if config.cameras else ""
        engine = {"packages": ("mujoco-warp", "mujoco"), "simulator": "mujoco_warp", "look": look}
    return seeded_spec(
        config,
        **engine,
        robot="floating gripper",
        controller="mocap position delta",
        state=(*POSITION, *TWO_FINGERS),
        actions=(*position_deltas(0.02), GRIPPER_ACTION),
    )
