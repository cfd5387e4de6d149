"""The DemoSpec of a MetaWorld task."""

from __future__ import annotations

from envs.config import EnvConfig
from envs.seeded_spec import GRIPPER_ACTION, POSITION, position_deltas, seeded_spec
from pixio_robot.types import DemoSpec


def metaworld_spec(config: EnvConfig) -> DemoSpec:
    return seeded_spec(
        config,
        packages=("metaworld", "mujoco"),
        robot="Sawyer",
        controller="mocap position delta",
        control_hz=80.0,
        state=(*POSITION, "gripper.opening [1]"),
        actions=(*position_deltas(0.01), GRIPPER_ACTION),
    )
