"""Whether an environment of others keeps what ours promise: the same seed, the same episode."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from envs.config import EnvConfig
from envs.foreign import facts_of
from envs.registry import Environment, make_env
from envs.spec import action_bounds
from pixio_robot.types import Frame

_SEED, _OTHER_SEED = 11, 12
_STEPS = 8
_UNBOUNDED = 1.0
"""Largest number of an action that has no bound."""


def repeats(config: EnvConfig) -> bool:
    """Whether a few steps are the same again: in the same environment after another episode, in a second one, and
    there without drawing.

    One that says of itself that it is not deterministic is believed. One whose starts differ is not stepped: no robot
    finds everything again to the last bit of its cameras, and none is moved by these actions at random.
    """
    if not facts_of(config).repeats:
        return False
    looks = facts_of(config).pictures is not None  # our own drawing needs no trial, and a graphics context
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


def _play(env: Environment, looks: bool) -> Iterator[tuple[Frame, float]]:
    """The same few actions at random, from where the environment is."""
    low, high = action_bounds(env.config)
    low, high = np.where(np.isfinite(low), low, -_UNBOUNDED), np.where(np.isfinite(high), high, _UNBOUNDED)
    rng = np.random.default_rng(0)
    for _ in range(_STEPS):
        result = env.step(rng.uniform(low, np.maximum(low, high)), looks)
        yield result.frame, result.reward
        if result.done:
            return


def _same(first: Frame, second: Frame) -> bool:
    """Numbers, and pictures where both have them."""
    return np.array_equal(first.state, second.state, equal_nan=True) and all(
        np.array_equal(image, second.images[name]) for name, image in first.images.items() if second.images
    )


def _all_same(first: list[tuple[Frame, float]], second: list[tuple[Frame, float]]) -> bool:
    return len(first) == len(second) and all(
        _same(one, other) and reward == again for (one, reward), (other, again) in zip(first, second, strict=True)
    )


def notes(config: EnvConfig, repeating: bool) -> list[str]:
    """What a user of somebody else's environment, which is `repeating` itself or not, should know before it is played,
    as sentences."""
    found = []
    if left_out := facts_of(config).left_out:
        found.append(f"not shown to policies, because neither a picture in colour nor a vector: {', '.join(left_out)}")
    if not repeating:
        found.append(
            f"{config.task} does not give the same episode again from the same seed: one that is played again, because "
            "its worker died or the evaluation was interrupted, is another one; so is one in another number of slots "
            "or workers, and policies are not compared on the same episodes"
        )
    return found
