"""Tests whether a third-party environment is reproducible: the same seed gives the same episode."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import numpy as np

from envs.config import EnvConfig
from envs.registry import Environment, make_env
from envs.spec import action_bounds
from envs.third_party.base import facts_of
from pixio_robot.errors import UserError
from pixio_robot.types import Frame

_SEED, _OTHER_SEED = 11, 12
_STEPS = 8
_UNBOUNDED = 1.0
"""Largest value for action dimensions without bounds."""


def repeats(config: EnvConfig) -> bool:
    """Whether a few steps are reproducible: in the same environment after another episode, in a second environment, and
    there without rendering.

    An environment that declares itself nondeterministic is not tested. One whose initial frames differ is not stepped:
    a real robot never reproduces its camera images to the last bit, and must not be moved by random actions.
    """
    if not facts_of(config).repeats:
        return False
    looks = facts_of(config).pictures is not None  # our own rendering needs no test, but would need a graphics context
    with contextlib.closing(make_env(config)) as env:
        first, again = env.reset(_SEED, looks), env.reset(_SEED, looks)
        if not _same(first, again):
            return False
        played = list(_play(env, looks))
        env.reset(_OTHER_SEED, looks)
        list(_play(env, looks))
        if not (_same(first, env.reset(_SEED, looks)) and _all_same(played, list(_play(env, looks)))):
            return False
    with contextlib.closing(make_env(config)) as other:
        return all(
            _same(first, other.reset(_SEED, look)) and _all_same(played, list(_play(other, look)))
            for look in dict.fromkeys((looks, False))
        )


def check_starts(config: EnvConfig, seeds: Iterable[int]) -> None:
    """Raise UserError for seeds that begin with the same initial state: a deterministic policy would play the same
    episode twice, and the interval of its success rate would be too narrow."""
    count = facts_of(config).initial_states
    if count is None:
        return
    first: dict[int, int] = {}
    for seed in seeds:
        if (before := first.setdefault(seed % count, seed)) != seed:
            raise UserError(
                f"{config.task} has {count} initial states, and the seeds {before} and {seed} begin with the same one: "
                f"evaluate on at most {count} seeds that follow each other, with episodes={count}."
            )


def _play(env: Environment, looks: bool) -> Iterator[tuple[Frame, float]]:
    """A few random actions, always the same, from the current state of the environment."""
    low, high = action_bounds(env.config)
    low, high = np.where(np.isfinite(low), low, -_UNBOUNDED), np.where(np.isfinite(high), high, _UNBOUNDED)
    rng = np.random.default_rng(0)
    for _ in range(_STEPS):
        result = env.step(rng.uniform(low, np.maximum(low, high)), looks)
        yield result.frame, result.reward
        if result.done:
            return


def _same(first: Frame, second: Frame) -> bool:
    """Whether the states are equal, and the images, if both frames have some."""
    return np.array_equal(first.state, second.state, equal_nan=True) and all(
        np.array_equal(image, second.images[name]) for name, image in first.images.items() if second.images
    )


def _all_same(first: list[tuple[Frame, float]], second: list[tuple[Frame, float]]) -> bool:
    return len(first) == len(second) and all(
        _same(one, other) and reward == again for (one, reward), (other, again) in zip(first, second, strict=True)
    )


def notes(config: EnvConfig, repeating: bool) -> list[str]:
    """What the user of a third-party environment should know in advance. repeating: whether it is reproducible."""
    found = []
    if left_out := facts_of(config).left_out:
        found.append(f"not used, because they are neither colour images nor vectors: {', '.join(left_out)}")
    if not repeating:
        found.append(
            f"{config.task} is not reproducible: the same seed does not give the same episode. Episodes that are "
            "repeated because a worker died or the evaluation was interrupted will differ, as will episodes with "
            "another number of slots or workers, and policies are not compared on the same episodes"
        )
    return found
