"""Our environments with Gymnasium's interface: `gymnasium.make("envs:pixio_robot/Lift-v0")`."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from envs.config import SIMULATOR_CAMERAS, EnvConfig
from envs.registry import make_env
from envs.spec import action_bounds
from envs.tasks import Simulator, get_task


class GymnasiumEnv(gymnasium.Env):
    """Observations are {camera: uint8 (h, w, 3), "state": float32 (s,)}; the action is float32 (a,) within its bounds.

    Keyword arguments are those of EnvConfig, by default with the cameras the task has; enumerations may be given by
    name. The horizon truncates; success terminates with reward 1, except in MetaWorld, where the episode continues.
    `reset(seed=None)` draws the episode's seed from the environment's own generator.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None, **config: Any) -> None:
        if shown := SIMULATOR_CAMERAS.get(get_task(config["task"]).simulator):
            config.setdefault("cameras", [name for name in ("front", "hand") if name in shown])
        settings = EnvConfig(**config)
        self._env = make_env(settings)
        # For video recorders; overrides the class attribute.
        self.metadata = self.metadata | {"render_fps": round(self._env.spec.control_hz)}
        self.render_mode = render_mode
        spec = self._env.spec
        images = {
            name: spaces.Box(0, 255, (camera.height, camera.width, 3), np.uint8)
            for name, camera in spec.cameras.items()
        }
        # Positions near the table (m), entries of a rotation matrix, and finger positions: all within 4. Objects that
        # an episode does without are put far away.
        reach = np.inf if settings.object_state or settings.simulator not in SIMULATOR_CAMERAS else 4.0
        state = spaces.Box(-reach, reach, (spec.state_dim,), np.float32)
        self.observation_space = spaces.Dict({**images, "state": state})
        low, high = (bound.astype(np.float32) for bound in action_bounds(settings))
        self.action_space = spaces.Box(low, high, dtype=np.float32)
        # In MetaWorld an episode continues after success; only the horizon ends it.
        self._ends_in_success = settings.simulator is not Simulator.METAWORLD

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        episode = int(self.np_random.integers(2**31)) if seed is None else seed
        frame = self._env.reset(episode)
        return {**frame.images, "state": frame.state}, {"seed": episode}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        result = self._env.step(action)
        observation = {**result.frame.images, "state": result.frame.state}
        terminated = result.success and result.done and self._ends_in_success
        return observation, result.reward, terminated, result.done and not terminated, {"success": result.success}

    def render(self) -> Any:
        return self._env.render() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        self._env.close()
