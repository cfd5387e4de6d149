"""Recording of expert episodes."""

from __future__ import annotations

import dataclasses

import numpy as np

from envs.config import EnvConfig
from envs.experts.disturbance import Disturbance, Disturber
from envs.experts.motions import motion_to_action
from envs.experts.registry import make_expert
from envs.recording.takeovers import TakeoverPlayer, Takeovers
from envs.registry import Environment, PrivilegedEnv, cached_env
from pixio_robot.data.demos.overridden_steps import OVERRIDDEN_STEPS
from pixio_robot.types import Episode, Frame, StepResult


class ExpertEpisodeRecorder:
    """Records one expert episode: call `act`, step the environment and call `add` until the episode is done."""

    def __init__(
        self,
        env: PrivilegedEnv,
        seed: int,
        frame: Frame,
        disturbance: Disturbance,
        takeovers: Takeovers | None = None,
    ) -> None:
        """env: at the start of the episode with that seed; `frame`: its first frame."""
        self._env, self._seed, self._disturbance, self._takeovers = env, seed, disturbance, takeovers
        self._disturb = Disturber(disturbance, seed)
        self._take_over = None if takeovers is None else TakeoverPlayer(takeovers, seed)
        self._expert = make_expert(env.config)
        self._expert.reset(env, self._disturb.rng)
        self._frames, self._actions, self._results = [frame], [], []
        self._overridden: list[int] = []

    def act(self) -> np.ndarray:
        """The action to execute: the expert's, with disturbances, or that of the policy that has taken over."""
        motion = self._expert.act(self._env)
        self._actions.append(motion_to_action(self._env, motion))
        executed = motion_to_action(self._env, self._disturb(motion))
        taken_over = None if self._take_over is None else self._take_over(self._frames[-1])
        if self._disturb.errs or taken_over is not None:
            self._overridden.append(len(self._actions) - 1)
        return executed if taken_over is None else taken_over

    def add(self, result: StepResult) -> None:
        """Record the result of the action."""
        self._results.append(result)
        self._frames.append(result.frame)

    def episode(self) -> Episode:
        """The recorded episode: the frame before each action, and the expert's undisturbed actions."""
        seen = self._frames[:-1]
        info = dataclasses.asdict(self._disturbance) | {"variation": self._env.config.variation.value}
        if self._takeovers is not None:
            info |= {"takeovers": self._takeovers.probability, "fingerprint": self._takeovers.fingerprint}
        if self._disturbance.mistakes or self._takeovers is not None:
            info[OVERRIDDEN_STEPS] = self._overridden
        return Episode(
            images={camera: np.stack([frame.images[camera] for frame in seen]) for camera in self._env.spec.cameras},
            state=np.stack([frame.state for frame in seen]),
            actions=np.stack(self._actions),
            rewards=np.array([result.reward for result in self._results], np.float32),
            success=self._results[-1].success,
            seed=self._seed,
            info=info,
        )


def record_seed(env_config: EnvConfig, disturbance: Disturbance, takeovers: Takeovers | None, seed: int) -> Episode:
    """`record_expert_episode` in this process's environment for the configuration."""
    return record_expert_episode(cached_env(env_config), seed, disturbance, takeovers)


def record_expert_episode(
    env: Environment, seed: int, disturbance: Disturbance | None = None, takeovers: Takeovers | None = None
) -> Episode:
    """Record one episode of the task's expert: executed with disturbances and takeovers, recorded without."""
    recorder = ExpertEpisodeRecorder(env, seed, env.reset(seed), disturbance or Disturbance(), takeovers)
    while True:
        result = env.step(recorder.act())
        recorder.add(result)
        if result.done:
            return recorder.episode()
