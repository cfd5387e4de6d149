"""`--env.type=pixio_robot`: pixio-robot's simulated tasks as LeRobot environments (lerobot 0.6)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import gymnasium
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig as LeRobotEnvConfig
from lerobot.envs.utils import freeze_after_episode_end

from envs.config import EnvConfig
from envs.gymnasium_env import GymnasiumEnv
from envs.spec import make_env_spec, max_episode_steps
from pixio_robot.interop.lerobot.features import ACTION, IMAGES, STATE


@LeRobotEnvConfig.register_subclass("pixio_robot")
@dataclasses.dataclass
class PixioRobotEnv(LeRobotEnvConfig):
    """A task of `pixio-robot evaluate env=TASK`; equal seeds give the same episodes as there."""

    task: str = "lift"  # pyright: ignore[reportIncompatibleVariableOverride]
    """Name of a file in configs/env."""
    settings: list[str] = dataclasses.field(default_factory=list)
    """Further environment settings, in the syntax of `evaluate`: `[image_size=84,"cameras=[front]"]`."""

    def __post_init__(self) -> None:
        self._config = self._compose_config()
        spec = make_env_spec(self._config)
        self._description = spec.task
        self.fps = round(spec.control_hz)
        pictures = {
            f"pixels/{name}": PolicyFeature(FeatureType.VISUAL, (camera.height, camera.width, 3))
            for name, camera in spec.cameras.items()
        }
        numbers = {
            "agent_pos": PolicyFeature(FeatureType.STATE, (spec.state_dim,)),
            ACTION: PolicyFeature(FeatureType.ACTION, (spec.action_dim,)),
        }
        self.features = pictures | numbers
        self.features_map = {f"pixels/{name}": f"{IMAGES}{name}" for name in spec.cameras}
        self.features_map |= {"agent_pos": STATE, ACTION: ACTION}

    def _compose_config(self) -> EnvConfig:
        """Raises UserError for an unknown task or setting."""
        from pixio_robot.cli.config.compose import load_settings
        from pixio_robot.cli.evaluate import EvaluateCommand

        words = [f"env={self.task}", *(f"env.{word}" for word in self.settings), "checkpoint=random"]
        return load_settings("evaluate", EvaluateCommand, words).env

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        return {}

    def create_envs(
        self, n_envs: int, use_async_envs: bool = False
    ) -> dict[str, dict[int, gymnasium.vector.VectorEnv]]:
        """Environments of the one task, as {type: {0: vector environment}}."""
        # Finished environments freeze until all are done: lerobot discards their further steps anyway.
        make_one = functools.partial(_LeRobotEnv, self._config, self.task, self._description)
        make = [freeze_after_episode_end(make_one)] * n_envs
        mode = gymnasium.vector.AutoresetMode.SAME_STEP
        if use_async_envs and n_envs > 1:
            vector = gymnasium.vector.AsyncVectorEnv(make, context="forkserver", autoreset_mode=mode)
        else:
            vector = gymnasium.vector.SyncVectorEnv(make, autoreset_mode=mode)
        return {self.type: {0: vector}}


class _LeRobotEnv(gymnasium.ObservationWrapper):
    """Observations and info in the layout that lerobot's rollouts expect."""

    def __init__(self, config: EnvConfig, task: str, description: str) -> None:
        """description: the task as demonstrations name it, which policies of several tasks are told."""
        super().__init__(GymnasiumEnv(render_mode="rgb_array", **vars(config)))
        self.task, self.task_description = task, description
        self._max_episode_steps = max_episode_steps(config)
        spaces = self.observation(self.env.observation_space.spaces)  # pyright: ignore[reportAttributeAccessIssue]
        pixels = gymnasium.spaces.Dict(spaces["pixels"])
        self.observation_space = gymnasium.spaces.Dict({**spaces, "pixels": pixels})

    def observation(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        images = {name: value for name, value in observation.items() if name != "state"}
        return {"pixels": images, "agent_pos": observation["state"]}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        # lerobot counts a success of any step. In `evaluate`, the last step decides.
        success = info["success"] and (terminated or truncated)
        return observation, reward, terminated, truncated, info | {"is_success": success}
