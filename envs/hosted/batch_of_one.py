"""Environments that simulate a batch of worlds and return tensors, such as ManiSkill's: a batch of one is played as a
single environment.

They are recognised by what Gymnasium's vector environments call `num_envs` and `single_observation_space`.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def play_as_single(env: Any) -> Any:
    """The environment itself, unless its observations are batches; then a `BatchOfOne`. Raises ValueError if there is
    more than one world in a batch."""
    inner = env.unwrapped
    single = getattr(inner, "single_observation_space", None)
    if single is None or env.observation_space == single:  # a wrapper may have taken its world out already
        return env
    if inner.num_envs != 1:
        raise ValueError(f"it simulates {inner.num_envs} worlds at once, but one is needed: make it with num_envs=1")
    return BatchOfOne(env)


class BatchOfOne:
    """The only world of `env`, whose observations, rewards, ends and images are arrays or tensors with a first
    dimension of 1. Observations and images become NumPy's, without that dimension."""

    def __init__(self, env: Any) -> None:
        self._env = env
        self.observation_space = env.unwrapped.single_observation_space
        self.action_space = env.unwrapped.single_action_space
        self.metadata = {**_describe(env.unwrapped), **(env.metadata or {})}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def reset(self, seed: int) -> tuple[Any, dict[str, Any]]:
        observation, info = self._env.reset(seed=seed)
        return _take_out(observation), info

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        # Some take a single action and some a batch.
        batch = np.reshape(action, self._env.action_space.shape)
        observation, reward, terminated, truncated, info = self._env.step(batch)
        return _take_out(observation), float(_take_out(reward)), bool(terminated), bool(truncated), info

    def render(self) -> np.ndarray:
        return _take_out(self._env.render())


def _describe(env: Any) -> dict[str, Any]:
    """What ManiSkill says of itself in attributes, as metadata: with another `control_mode`, the same numbers would
    move the robot elsewhere."""
    attributes = {"robot": "robot_uids", "controller": "control_mode", "render_fps": "control_freq"}
    found = {key: getattr(env, attribute, None) for key, attribute in attributes.items()}
    return {key: value for key, value in found.items() if isinstance(value, (str, int))}


def _take_out(batch: Any) -> Any:
    if isinstance(batch, dict):
        return {key: _take_out(part) for key, part in batch.items()}
    if isinstance(batch, (tuple, list)):
        return tuple(_take_out(part) for part in batch)
    return np.asarray(batch.cpu() if hasattr(batch, "cpu") else batch)[0]
