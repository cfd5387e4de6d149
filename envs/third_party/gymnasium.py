"""Environments with Gymnasium's interface: from Gymnasium, gymnasium-robotics or any other package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np

from envs.third_party.base import ForeignMujoco, ForeignPlain
from envs.third_party.gymnasium_images import DRAWN, PICTURES, GymnasiumPlain
from envs.third_party.gymnasium_mujoco import GymnasiumMujoco, has_model
from envs.third_party.spaces import Layout
from pixio_robot.errors import UserError


def open_gymnasium(name: str, settings: Mapping[str, Any]) -> ForeignMujoco | ForeignPlain:
    """`gymnasium.make(name, **settings)`, with the time limit replaced by `EnvConfig.horizon`.

    An environment with an unwrapped MuJoCo model and no images in its observation is rendered by us. Raises UserError
    if it cannot be created, or if its actions are not a numeric vector.
    """
    task = f"task=gymnasium:{name}"
    return open_made(task, lambda settings: _made(task, name, settings), settings)


def open_made(
    task: str, make: Callable[[Mapping[str, Any]], gymnasium.Env], settings: Mapping[str, Any]
) -> ForeignMujoco | ForeignPlain:
    """As `open_gymnasium`, of what `make(settings)` returns. It is made a second time only if it shows nothing in its
    observations and has to be told to render."""
    env, blind = make(settings), ""
    try:
        _check_actions(task, env.action_space)
        pictures = Layout(env.observation_space, task).pictures
        if has_model(env) and not pictures:
            return GymnasiumMujoco(env)
        shows = pictures or env.metadata.get(PICTURES)
        could_draw = DRAWN in (env.metadata.get("render_modes") or ())
        if not shows and could_draw and env.render_mode != DRAWN and "render_mode" not in settings:
            env.close()
            try:
                env = make({**settings, "render_mode": DRAWN})
            except UserError as error:  # its constructor may not accept the argument
                env, blind = make(settings), str(error)
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
        raise UserError(f"{task} takes {type(space).__name__} actions; only Box is supported.")
    if not np.issubdtype(space.dtype, np.floating):
        raise UserError(f"{task} takes actions of {space.dtype}; only floating-point actions are supported.")
