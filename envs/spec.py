"""The DemoSpec, action bounds and episode length of a configuration; starts no simulator, except for third-party tasks:
those with `python=` in a process of that Python, once."""

from __future__ import annotations

import numpy as np

from envs.config import Controller, EnvConfig
from envs.metaworld_spec import metaworld_spec
from envs.robomimic.spec import robomimic_spec
from envs.robomimic.task import action_limits, clip_limits
from envs.robosuite.spec import ABSOLUTE_REACH, robosuite_spec
from envs.tabletop.spec import tabletop_spec
from envs.tasks import DEFAULT_HORIZON, THIRD_PARTY, Simulator, get_task, registered_horizon
from pixio_robot.types import DemoSpec

_SPECS = {
    Simulator.ROBOSUITE: robosuite_spec,
    Simulator.TABLETOP: tabletop_spec,
    Simulator.METAWORLD: metaworld_spec,
    Simulator.ROBOMIMIC: robomimic_spec,
}


def make_env_spec(config: EnvConfig) -> DemoSpec:
    """The DemoSpec of `make_env(config)`. Raises UserError if an extra is missing."""
    if config.simulator in THIRD_PARTY:
        from envs.third_party.base import get_env_metadata
        from envs.third_party.spec import third_party_spec

        return third_party_spec(config, get_env_metadata(config))
    return _SPECS[config.simulator](config)


def action_bounds(config: EnvConfig) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest action, float64 (a,) each; random actions lie between them."""
    if config.simulator in THIRD_PARTY:
        from envs.third_party.base import get_env_metadata

        metadata = get_env_metadata(config)
        return metadata.low.copy(), metadata.high.copy()
    spec = make_env_spec(config)
    high = action_limits(spec.action_names) if config.simulator is Simulator.ROBOMIMIC else np.ones(spec.action_dim)
    if config.controller is Controller.OSC_POSE_ABSOLUTE:
        high[:6] = ABSOLUTE_REACH
    return -high, high


def clip_bounds(config: EnvConfig) -> tuple[np.ndarray, np.ndarray]:
    """Between which values the environment clips actions, float64 (a,) each: `action_bounds`, but infinite with
    clip_actions=false, and for a robomimic file only absolute poses, at limits of their own."""
    if config.simulator is Simulator.ROBOMIMIC:
        limits = clip_limits(make_env_spec(config).action_names)
        return -limits, limits
    low, high = action_bounds(config)
    return (low, high) if config.clip_actions else (np.full_like(low, -np.inf), np.full_like(high, np.inf))


def max_episode_steps(config: EnvConfig) -> int:
    """The control steps after which an episode ends: `horizon`, or the task's own."""
    if config.horizon is not None:
        return config.horizon
    if config.python:
        from envs.third_party.base import get_env_metadata

        return get_env_metadata(config).horizon or DEFAULT_HORIZON
    if config.simulator is Simulator.GYMNASIUM:
        return registered_horizon(config.task)
    return get_task(config.task).horizon
