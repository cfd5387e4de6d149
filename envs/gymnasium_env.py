"""The same environments behind Gymnasium's interface: `gymnasium.make("pixio_robot/Lift-v0")`."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from envs.config import EnvConfig
from envs.registry import make_env


class GymnasiumEnv(gymnasium.Env):
    """Observations are {camera: uint8 (h, w, 3), "state": float32 (11,)}; the action is float32 (7,) in [-1, 1].

    Keyword arguments are those of EnvConfig. The horizon truncates, success terminates with reward 1.
    `reset(seed=None)` draws the episode's seed from the environment's own generator.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None, **config: Any) -> None:
        self._env = make_env(EnvConfig(**config))
        self.render_mode = render_mode
        spec = self._env.spec
        images = {
            name: spaces.Box(0, 255, (camera.height, camera.width, 3), np.uint8)
            for name, camera in spec.cameras.items()
        }
        # Metres within the table's surroundings, entries of a rotation matrix, and fingers: all within 2.
        state = spaces.Box(-2.0, 2.0, (spec.state_dim,), np.float32)
        self.observation_space = spaces.Dict({**images, "state": state})
        self.action_space = spaces.Box(-1.0, 1.0, (spec.action_dim,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        episode = int(self.np_random.integers(2**31)) if seed is None else seed
        frame = self._env.reset(episode)
        return {**frame.images, "state": frame.state}, {"seed": episode}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        result = self._env.step(action)
        observation = {**result.frame.images, "state": result.frame.state}
        truncated = result.done and not result.success
        return observation, result.reward, result.success, truncated, {"success": result.success}

    def render(self) -> Any:
        return self._env.render() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        self._env.close()
