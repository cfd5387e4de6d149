"""Environments that speak Gymnasium: its own, gymnasium-robotics', anyone's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from envs.foreign import ForeignMujoco, ForeignPlain
from envs.foreign_gymnasium_mujoco import GymnasiumMujoco, has_model
from envs.foreign_gymnasium_plain import DRAWN, GymnasiumPlain
from envs.foreign_spaces import Layout
from pixio_robot.errors import UserError


def open_gymnasium(name: str, settings: Mapping[str, Any]) -> ForeignMujoco | ForeignPlain:
    """`gymnasium.make(name, **settings)`, whose time limit is left to `EnvConfig.horizon`.

    One with a bare MuJoCo model, and no pictures in its observation, is drawn by us. Raises UserError where it cannot
    be made, or takes other actions than a vector of numbers.
    """
    task = f"task=gymnasium:{name}"
    env = _made(task, name, settings)
    try:
        _check_actions(task, env.action_space)
        layout = Layout(env.observation_space, task)
        if has_model(env) and not layout.pictures:
            return GymnasiumMujoco(env)
        could_draw, blind = DRAWN in (env.metadata.get("render_modes") or ()), ""
        if not layout.pictures and could_draw and env.render_mode != DRAWN and "render_mode" not in settings:
            env.close()
            try:
                env = _made(task, name, {**settings, "render_mode": DRAWN})
            except UserError as error:  # a function that makes it may not take the setting
                env, blind = _made(task, name, settings), str(error)
        return GymnasiumPlain(task, env, blind)
    except BaseException:
        env.close()
        raise


def _made(task: str, name: str, settings: Mapping[str, Any]) -> gymnasium.Env:
    try:
        return gymnasium.make(name, max_episode_steps=-1, disable_env_checker=True, **settings)
    except (gymnasium.error.Error, TypeError, ValueError) as error:
        how = f" with make={dict(settings)}" if settings else ""
        raise UserError(f"Gymnasium cannot make {task}{how}: {error}") from error


def _check_actions(task: str, space: gymnasium.Space) -> None:
    if not isinstance(space, gymnasium.spaces.Box):
        raise UserError(f"{task} takes {type(space).__name__} actions; only Box can be run here.")
    if not np.issubdtype(space.dtype, np.floating):
        raise UserError(f"{task} takes actions of {space.dtype}; policies give numbers with fractions.")
