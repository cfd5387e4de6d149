"""MuJoCo environments that speak Gymnasium: Gymnasium's own, gymnasium-robotics', anyone's."""

# pyright: reportAttributeAccessIssue=false
# What Gymnasium's MuJoCo environments have beyond `gymnasium.Env` is no part of any type.

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import mujoco
import numpy as np

from envs.foreign import Facts
from pixio_robot.errors import UserError


def _names(space: gymnasium.Space, prefix: str) -> list[str]:
    if isinstance(space, gymnasium.spaces.Dict):
        return [name for key, part in space.items() for name in _names(part, key)]
    size = gymnasium.spaces.utils.flatdim(space)
    return [f"{prefix}.{index} [?]" for index in range(size)]


class GymnasiumMujoco:
    """See `Foreign`. The state is the flattened observation; done is `is_success` or `success` of `info`."""

    def __init__(self, name: str) -> None:
        try:
            self._env: Any = gymnasium.make(name).unwrapped
        except gymnasium.error.Error as error:
            raise UserError(f"Gymnasium cannot make task=gymnasium:{name}: {error}") from error
        if not isinstance(getattr(self._env, "model", None), mujoco.MjModel):
            self._env.close()
            raise UserError(f"task=gymnasium:{name} is no MuJoCo environment: it has no MuJoCo model.")
        actions = self._env.action_space
        if not isinstance(actions, gymnasium.spaces.Box):
            self._env.close()
            raise UserError(f"task=gymnasium:{name} takes {type(actions).__name__} actions; only Box can be run here.")
        self.facts = Facts(
            state_names=tuple(_names(self._env.observation_space, "observation")),
            action_names=tuple(f"action.{index} [?]" for index in range(actions.shape[0])),
            low=actions.low.astype(np.float64),
            high=actions.high.astype(np.float64),
            control_hz=round(1 / float(self._env.dt), 6),
            versions=(type(self._env).__module__.partition(".")[0], "mujoco"),
        )
        drawn = getattr(self._env, "mujoco_renderer", None)
        self.view: Mapping[str, Any] = getattr(drawn, "default_cam_config", None) or {}

    @property
    def model(self) -> mujoco.MjModel:
        return self._env.model

    @property
    def data(self) -> mujoco.MjData:
        return self._env.data

    def _flat(self, observation: Any) -> np.ndarray:
        return gymnasium.spaces.utils.flatten(self._env.observation_space, observation)

    def reset(self, seed: int) -> np.ndarray:
        return self._flat(self._env.reset(seed=seed)[0])

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        observation, reward, terminated, truncated, info = self._env.step(action.astype(np.float32))
        success = bool(info.get("is_success", info.get("success", False)))
        return self._flat(observation), float(reward), success, bool(terminated or truncated)

    def observe(self) -> np.ndarray:
        return self._flat(self._env._get_obs())

    def close(self) -> None:
        self._env.close()
