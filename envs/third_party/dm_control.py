"""Tasks of the dm_control suite (Tunyasuvunakool et al. 2020)."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from envs.hosted.package_versions import version_of
from envs.third_party.base import EnvMetadata
from pixio_robot.errors import UserError, unknown_name


class DmControl:
    """See `ThirdPartyMujocoEnv`. The state is the concatenation of all observations. There are rewards, but no
    success."""

    view: Mapping[str, Any] = {}

    def __init__(self, name: str) -> None:
        from dm_control import suite

        known = ["/".join(pair) for pair in suite.ALL_TASKS]
        if name not in known:
            raise unknown_name("dm_control task", name, known)
        domain, task = name.split("/")
        self._env: Any = suite.load(domain, task, task_kwargs={"random": 0})
        actions = self._env.action_spec()
        self.metadata = EnvMetadata(
            state_names=tuple(
                f"{part}.{index} [?]"
                for part, spec in self._env.observation_spec().items()
                for index in range(int(np.prod(spec.shape)))
            ),
            action_names=tuple(f"action.{index} [?]" for index in range(actions.shape[0])),
            low=np.broadcast_to(actions.minimum, actions.shape).astype(np.float64),
            high=np.broadcast_to(actions.maximum, actions.shape).astype(np.float64),
            control_hz=round(1 / self._env.control_timestep(), 6),
            versions=(version_of("dm-control"), version_of("mujoco")),
        )

    @property
    def model(self) -> Any:
        return self._env.physics.model.ptr

    @property
    def data(self) -> Any:
        return self._env.physics.data.ptr

    def _flat(self, observation: Mapping[str, Any]) -> np.ndarray:
        return np.concatenate([np.ravel(part) for part in observation.values()])

    def reset(self, seed: int) -> np.ndarray:
        # The suite's tasks draw from this generator only.
        self._env.task._random = np.random.RandomState(seed % 2**32)
        return self._flat(self._env.reset().observation)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        after = self._env.step(action)
        if after.first():
            raise UserError("dm_control started a new episode by itself: the horizon is longer than the task's limit.")
        return self._flat(after.observation), float(after.reward or 0.0), False, bool(after.last())

    def on_state_restored(self) -> np.ndarray:
        self._env._step_count, self._env._reset_next_step = 0, False
        return self._flat(self._env.task.get_observation(self._env.physics))

    def show_goal(self) -> None:
        """Goals are parts of the model, which `reset` has moved."""

    def close(self) -> None:
        self._env.close()
