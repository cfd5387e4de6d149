"""Environments with Gymnasium's interface: from Gymnasium, gymnasium-robotics or any other package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np

from envs.hosted.batch_of_one import play_as_single
from envs.third_party.base import ThirdPartyImageEnv, ThirdPartyMujocoEnv
from envs.third_party.gymnasium_images import PICTURES_KEY, RENDER_MODE, GymnasiumImages
from envs.third_party.gymnasium_mujoco import NO_TIME_LIMIT, GymnasiumMujoco, has_mujoco_model
from envs.third_party.spaces import ObservationLayout
from pixio_robot.errors import UserError


def open_gymnasium_env(name: str, settings: Mapping[str, Any]) -> ThirdPartyMujocoEnv | ThirdPartyImageEnv:
    """`gymnasium.make(name, **settings)`, with the time limit replaced by `EnvConfig.horizon`.

    An environment with an unwrapped MuJoCo model and no images in its observation is rendered by us. Raises UserError
    if it cannot be created, or if its actions are not a numeric vector.
    """
    task = f"task=gymnasium:{name}"
    return wrap_gymnasium_env(task, lambda settings: _make(task, name, settings), settings)


def wrap_gymnasium_env(
    task: str, make: Callable[[Mapping[str, Any]], gymnasium.Env], settings: Mapping[str, Any]
) -> ThirdPartyMujocoEnv | ThirdPartyImageEnv:
    """As `open_gymnasium_env`, of what `make(settings)` returns. It is made a second time only if its
    observations contain no images and it has to be told to render."""
    env, render_error = make(settings), ""
    try:
        _check_actions(task, env.action_space)
        image_sizes = ObservationLayout(env.observation_space, task).image_sizes
        if has_mujoco_model(env) and not image_sizes:
            return GymnasiumMujoco(env)
        has_images = image_sizes or env.metadata.get(PICTURES_KEY)
        can_render = RENDER_MODE in (env.metadata.get("render_modes") or ())
        if not has_images and can_render and env.render_mode != RENDER_MODE and "render_mode" not in settings:
            env.close()
            try:
                env = make({**settings, "render_mode": RENDER_MODE})
            except UserError as error:  # its constructor may not accept the argument
                env, render_error = make(settings), str(error)
        return GymnasiumImages(task, env, render_error)
    except BaseException:
        env.close()
        raise


def _make(task: str, name: str, settings: Mapping[str, Any]) -> gymnasium.Env:
    try:
        env = gymnasium.make(name, max_episode_steps=NO_TIME_LIMIT, disable_env_checker=True, **settings)
        return play_as_single(env)
    except (gymnasium.error.Error, TypeError, ValueError) as error:
        how = f" with make={dict(settings)}" if settings else ""
        raise UserError(f"Gymnasium cannot make {task}{how}: {error}") from error


def _check_actions(task: str, space: gymnasium.Space) -> None:
    if not isinstance(space, gymnasium.spaces.Box):
        raise UserError(f"{task} takes {type(space).__name__} actions; only Box is supported.")
    if not np.issubdtype(space.dtype, np.floating):
        raise UserError(f"{task} takes actions of {space.dtype}; only floating-point actions are supported.")
