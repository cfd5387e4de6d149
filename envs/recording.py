"""One episode of the expert, as it is recorded."""

from __future__ import annotations

import numpy as np

from envs.config import EnvConfig
from envs.experts import make_expert
from envs.registry import Environment, environment_of_process
from pixio_robot.types import Episode

_NOISE_STREAM = 2


def run_seed(env_config: EnvConfig, noise: float, seed: int) -> Episode:
    """`run_expert` in this process's environment of that configuration."""
    return run_expert(environment_of_process(env_config), seed, noise)


def run_expert(env: Environment, seed: int, noise: float = 0.0) -> Episode:
    """One episode of the task's expert: executed with noise, recorded without."""
    expert = make_expert(env.config.task)
    rng = np.random.default_rng([seed, _NOISE_STREAM])
    frame = env.reset(seed)
    expert.reset(env, rng)
    frames, actions, rewards = [], [], []
    while True:
        action = expert.act(env)
        disturbance = np.append(rng.normal(0.0, noise, len(action) - 1), 0.0) if noise else 0.0
        result = env.step(np.clip(action + disturbance, -1, 1))
        frames.append(frame)
        actions.append(action)
        rewards.append(result.reward)
        frame = result.frame
        if result.done:
            break
    return Episode(
        images={camera: np.stack([seen.images[camera] for seen in frames]) for camera in env.spec.cameras},
        state=np.stack([seen.state for seen in frames]),
        actions=np.stack(actions),
        rewards=np.array(rewards, np.float32),
        success=result.success,
        seed=seed,
        info={"noise": noise, "variation": env.config.variation.value},
    )
