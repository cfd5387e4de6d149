"""The DemoSpec of the environment of imported robomimic demonstrations."""

from __future__ import annotations

import dataclasses

from envs.config import EnvConfig
from envs.robomimic.task import load_recorded_env
from envs.seeded_spec import horizon_text, installed_versions
from pixio_robot.types import SIMULATED, DemoSpec


def robomimic_spec(config: EnvConfig) -> DemoSpec:
    """The DemoSpec of the demonstrations, which a policy trained on them requires."""
    recorded = load_recorded_env(config.task)
    spec = recorded.spec
    return dataclasses.replace(
        spec,
        simulator_version=installed_versions("robosuite", "mujoco"),
        cameras={name: spec.cameras[name] for name in config.cameras},
        source=f"{SIMULATED}env_args {recorded.fingerprint}{horizon_text(config)}",
        licence="",
    )
