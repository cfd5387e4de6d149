"""Stretches of an expert's episode in which a policy acts, so that the expert shows the way out of where policies get.

The expert's actions for states that the learner itself visits are DAgger (Ross et al., AISTATS 2011). Here the policy
acts for a stretch of one to three seconds, and then the expert goes on, as the human in HG-DAgger (Kelly et al., ICRA
2019): a policy that predicts chunks of actions must see what the expert does next, not only its first action.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pixio_robot.types import Actor, Frame

_TAKEOVER_STREAM = 5
"""Random stream of an episode, distinct from those of `envs.experts.disturbance` and `envs.rendering.scene`."""

_TAKEOVER_STEPS = (10, 61)
"""Duration in control steps: at least the first number, less than the second."""


@dataclass(frozen=True)
class Takeovers:
    """Which policy takes over, and how often."""

    load: Callable[[], Actor]
    """Loads the policy, for one slot; called once in each process, so it can be pickled."""
    fingerprint: str
    """Of the policy's weights."""
    probability: float
    """Of a takeover's beginning, in each step in which the expert acts."""


class TakeoverPlayer:
    """Plays the takeovers of the episode with that seed."""

    def __init__(self, takeovers: Takeovers, seed: int) -> None:
        self._actor, self._probability = _load_once(takeovers.load), takeovers.probability
        self._rng = np.random.default_rng([seed, _TAKEOVER_STREAM])
        self._left = 0

    def __call__(self, frame: Frame) -> np.ndarray | None:
        """The policy's action (a,) for the frame, or None where the expert acts; called once in each step."""
        if self._left == 0 and self._rng.random() < self._probability:
            self._left = int(self._rng.integers(*_TAKEOVER_STEPS))
            self._actor.reset(0, int(self._rng.integers(2**31)))
        if self._left == 0:
            return None
        self._left -= 1
        return self._actor.act({0: frame})[0]


@functools.cache
def _load_once(load: Callable[[], Actor]) -> Actor:
    return load()
