"""Environments that speak Gymnasium: its own, gymnasium-robotics', anyone's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from envs.foreign import FRONT, Facts, ForeignMujoco, ForeignPlain
from envs.foreign_spaces import Layout, check_picture
from pixio_robot.errors import UserError
from pixio_robot.types import Frame

_DRAWN = "rgb_array"


def open_gymnasium(name: str, settings: Mapping[str, Any]) -> ForeignMujoco | ForeignPlain:
    """`gymnasium.make(name, **settings)`, whose time limit is left to `EnvConfig.horizon`.

    One with a MuJoCo model, and no pictures in its observation, is drawn by us. Raises UserError where it cannot be
    made, or takes other actions than a vector of numbers.
    """
    from envs.foreign_gymnasium_mujoco import GymnasiumMujoco, has_model

    task = f"task=gymnasium:{name}"
    env = _made(task, name, settings)
    try:
        _check_actions(task, env.action_space)
        layout = Layout(env.observation_space, task)
        if has_model(env) and not layout.pictures:
            return GymnasiumMujoco(env)
        could_draw = _DRAWN in (env.metadata.get("render_modes") or ())
        if not layout.pictures and could_draw and env.render_mode != _DRAWN and "render_mode" not in settings:
            env.close()
            env = _made(task, name, {**settings, "render_mode": _DRAWN})
        return GymnasiumPlain(task, env)
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


def action_facts(space: gymnasium.Space) -> dict[str, Any]:
    """Names and bounds of the numbers of a Box, in one row."""
    assert isinstance(space, gymnasium.spaces.Box)
    return {
        "action_names": tuple(f"action.{index} [?]" for index in range(int(np.prod(space.shape)))),
        "low": space.low.astype(np.float64).ravel(),
        "high": space.high.astype(np.float64).ravel(),
    }


def succeeded(info: Mapping[str, Any]) -> bool:
    """By the environment's own word."""
    return bool(info.get("is_success", info.get("success", False)))


class GymnasiumPlain:
    """See `ForeignPlain`: an environment, in its wrappers, of which nothing is known but its spaces and `render`."""

    def __init__(self, task: str, env: gymnasium.Env) -> None:
        self._env, self._task = env, task
        self._layout = Layout(env.observation_space, task)
        self._observation: Any = None
        self._draws = not self._layout.pictures and env.render_mode == _DRAWN
        pictures, blind = dict(self._layout.pictures), ""
        if self._draws:
            pictures, blind = self._try_to_draw()
        rate = env.metadata.get("render_fps")
        self.facts = Facts(
            state_names=self._layout.state_names,
            **action_facts(env.action_space),
            # Not `dt`, which may be a step of physics.
            control_hz=None if rate is None else float(rate),
            versions=(type(env.unwrapped).__module__.partition(".")[0], "gymnasium"),
            pictures=pictures,
            blind=blind,
            left_out=tuple(self._layout.left_out),
            repeats=not (env.unwrapped.spec is not None and env.unwrapped.spec.nondeterministic),
        )

    def _try_to_draw(self) -> tuple[dict[str, tuple[int, int]], str]:
        """The size of what `render` shows, or why it shows nothing."""
        self._env.reset(seed=0)
        try:
            height, width = np.array(self._env.render()).shape[:2]
        except Exception as error:  # whatever keeps somebody else's code from drawing
            return {}, str(error) or type(error).__name__
        return {FRONT: (height, width)}, ""

    def reset(self, seed: int, look: bool) -> Frame:
        self._observation = self._env.reset(seed=seed)[0]
        return self._frame(look)

    def step(self, action: np.ndarray, look: bool) -> tuple[Frame, float, bool, bool]:
        space = self._env.action_space
        given = action.astype(space.dtype).reshape(space.shape)
        self._observation, reward, terminated, truncated, info = self._env.step(given)
        return self._frame(look), float(reward), succeeded(info), bool(terminated or truncated)

    def _frame(self, look: bool) -> Frame:
        state = self._layout.state(self._observation).astype(np.float32)
        return Frame(self.shown() if look else {}, state)

    def shown(self) -> dict[str, np.ndarray]:
        if not self._draws:
            return self._layout.images(self._observation)
        assert self.facts.pictures is not None
        picture = np.array(self._env.render())
        check_picture(picture, self.facts.pictures[FRONT], f"render() of {self._task}")
        return {FRONT: picture}

    def close(self) -> None:
        self._env.close()
