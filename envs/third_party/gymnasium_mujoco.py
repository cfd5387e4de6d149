"""Gymnasium environments whose MuJoCo model is rendered here, from any camera and at any size."""

# pyright: reportAttributeAccessIssue=false
# The attributes that Gymnasium's MuJoCo environments have beyond `gymnasium.Env` are not typed.

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import mujoco
import numpy as np

from envs.hosted.package_versions import version_of
from envs.hosted.success import is_success
from envs.third_party.base import EnvMetadata
from envs.third_party.spaces import action_metadata, unflatten_action

_CHECKING_WRAPPERS = (gymnasium.wrappers.OrderEnforcing, gymnasium.wrappers.PassiveEnvChecker)
"""Wrappers that do not change the environment's behaviour."""
NO_TIME_LIMIT = 2**31 - 1
"""`max_episode_steps` in place of that of the registration. Gymnasium has -1 for this, but ManiSkill, which replaces
Gymnasium's wrapper by its own, then ends every episode after a step."""


def has_mujoco_model(env: gymnasium.Env) -> bool:
    """Whether it is built like Gymnasium's own MuJoCo environments, with a model, its data, a time step and an
    observation function, and no wrapper changes its observations, actions, rewards or termination."""
    inner: Any = env
    while type(inner) in _CHECKING_WRAPPERS or _never_ends(inner):
        inner = inner.env
    return (
        inner is env.unwrapped
        and isinstance(getattr(inner, "model", None), mujoco.MjModel)
        and isinstance(getattr(inner, "data", None), mujoco.MjData)
        and hasattr(inner, "dt")
        and hasattr(inner, "_get_obs")
    )


def _never_ends(env: Any) -> bool:
    return type(env) is gymnasium.wrappers.TimeLimit and env._max_episode_steps == NO_TIME_LIMIT


def _element_names(space: gymnasium.Space, prefix: str) -> list[str]:
    if isinstance(space, gymnasium.spaces.Dict):
        return [name for key, part in space.items() for name in _element_names(part, key)]
    size = gymnasium.spaces.utils.flatdim(space)
    return [f"{prefix}.{index} [?]" for index in range(size)]


class GymnasiumMujoco:
    """See `ThirdPartyMujocoEnv`. The state is the flattened observation; see `is_success`."""

    def __init__(self, env: gymnasium.Env) -> None:
        """env: an environment for which `has_mujoco_model` is true."""
        self._env: Any = env.unwrapped
        self.metadata = EnvMetadata(
            state_names=tuple(_element_names(self._env.observation_space, "observation")),
            **action_metadata(self._env.action_space),
            control_hz=round(1 / float(self._env.dt), 6),
            versions=(version_of(type(self._env).__module__.partition(".")[0]), version_of("mujoco")),
            deterministic=not (self._env.spec is not None and self._env.spec.nondeterministic),
        )

    @property
    def model(self) -> mujoco.MjModel:
        return self._env.model

    @property
    def data(self) -> mujoco.MjData:
        return self._env.data

    @property
    def view(self) -> Mapping[str, Any]:
        """That of Gymnasium's `render`: the model's camera if it renders from one (before Gymnasium 1.4 by default),
        otherwise the free camera as its viewer begins, with the task's changes."""
        drawn = getattr(self._env, "mujoco_renderer", None)
        if drawn is None:
            return {}
        if (camera := getattr(drawn, "camera_id", None)) not in (None, -1):
            return {"type": mujoco.mjtCamera.mjCAMERA_FIXED, "fixedcamid": camera}
        begins = mujoco.MjvCamera()
        view = {"azimuth": begins.azimuth, "elevation": begins.elevation, "distance": self.model.stat.extent}
        view["lookat"] = np.median(self.data.geom_xpos, axis=0)
        return view | (getattr(drawn, "default_cam_config", None) or {})

    def _flat(self, observation: Any) -> np.ndarray:
        return gymnasium.spaces.utils.flatten(self._env.observation_space, observation)

    def reset(self, seed: int) -> np.ndarray:
        return self._flat(self._env.reset(seed=seed)[0])

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        observation, reward, terminated, truncated, info = self._env.step(
            unflatten_action(self._env.action_space, action)
        )
        return self._flat(observation), float(reward), is_success(info), bool(terminated or truncated)

    def on_state_restored(self) -> np.ndarray:
        return self._flat(self._env._get_obs())

    def show_goal(self) -> None:
        """Move the goal's marks, which gymnasium-robotics does in its own `render` only."""
        getattr(self._env, "_render_callback", lambda: None)()

    def close(self) -> None:
        self._env.close()
