"""Tests whether a third-party environment is reproducible: the same seed gives the same episode."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import numpy as np

from envs.config import EnvConfig
from envs.registry import Environment, make_env
from envs.spec import action_bounds
from envs.third_party.base import get_env_metadata
from pixio_robot.errors import UserError
from pixio_robot.types import Frame

_SEED, _OTHER_SEED = 11, 12
_STEPS = 8
_UNBOUNDED_LIMIT = 1.0
"""Largest value for action dimensions without bounds."""


def is_reproducible(config: EnvConfig) -> bool:
    """Whether a few steps are reproducible: in the same environment after another episode, in a second environment, and
    there without rendering.

    An environment that declares itself nondeterministic is not tested. One whose initial frames differ is not stepped:
    a real robot never reproduces its camera images to the last bit, and must not be moved by random actions.
    """
    metadata = get_env_metadata(config)
    if not metadata.deterministic:
        return False
    render = metadata.image_sizes is not None  # our own rendering needs no test, but would need a graphics context
    with contextlib.closing(make_env(config)) as env:
        first, again = env.reset(_SEED, render), env.reset(_SEED, render)
        if not _frames_equal(first, again):
            return False
        rollout = list(_random_rollout(env, render))
        env.reset(_OTHER_SEED, render)
        list(_random_rollout(env, render))
        if not (
            _frames_equal(first, env.reset(_SEED, render))
            and _rollouts_equal(rollout, list(_random_rollout(env, render)))
        ):
            return False
    with contextlib.closing(make_env(config)) as other:
        return all(
            _frames_equal(first, other.reset(_SEED, render_other))
            and _rollouts_equal(rollout, list(_random_rollout(other, render_other)))
            for render_other in dict.fromkeys((render, False))
        )


def check_distinct_initial_states(config: EnvConfig, seeds: Iterable[int]) -> None:
    """Raise UserError for seeds that begin with the same initial state: a deterministic policy would play the same
    episode twice, and the interval of its success rate would be too narrow."""
    count = get_env_metadata(config).initial_states
    if count is None:
        return
    first: dict[int, int] = {}
    for seed in seeds:
        if (before := first.setdefault(seed % count, seed)) != seed:
            raise UserError(
                f"{config.task} has {count} initial states, and the seeds {before} and {seed} begin with the same one: "
                f"evaluate on at most {count} seeds that follow each other, with episodes={count}."
            )


def _random_rollout(env: Environment, render: bool) -> Iterator[tuple[Frame, float]]:
    """A few random actions, always the same, from the current state of the environment."""
    low, high = action_bounds(env.config)
    low, high = np.where(np.isfinite(low), low, -_UNBOUNDED_LIMIT), np.where(np.isfinite(high), high, _UNBOUNDED_LIMIT)
    rng = np.random.default_rng(0)
    for _ in range(_STEPS):
        result = env.step(rng.uniform(low, np.maximum(low, high)), render)
        yield result.frame, result.reward
        if result.done:
            return


def _frames_equal(first: Frame, second: Frame) -> bool:
    """Whether the states are equal, and the images, if both frames have some."""
    return np.array_equal(first.state, second.state, equal_nan=True) and all(
        np.array_equal(image, second.images[name]) for name, image in first.images.items() if second.images
    )


def _rollouts_equal(first: list[tuple[Frame, float]], second: list[tuple[Frame, float]]) -> bool:
    return len(first) == len(second) and all(
        _frames_equal(one, other) and reward == again
        for (one, reward), (other, again) in zip(first, second, strict=True)
    )


def limitations(config: EnvConfig, reproducible: bool) -> list[str]:
    """What the user of a third-party environment should know in advance.

    reproducible: what `is_reproducible` returned.
    """
    lines = []
    if unsupported_parts := get_env_metadata(config).unsupported_parts:
        lines.append(f"not used, because they are neither colour images nor vectors: {', '.join(unsupported_parts)}")
    if not reproducible:
        lines.append(
            f"{config.task} is not reproducible: the same seed does not give the same episode. Episodes that are "
            "repeated because a worker died or the evaluation was interrupted will differ, as will episodes with "
            "another number of slots or workers, and policies are not compared on the same episodes"
        )
    return lines
