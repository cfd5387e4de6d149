"""Actors that need no training, as a lower bound for every success rate."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pixio_robot.errors import UserError
from pixio_robot.types import Frame

STREAM = 5
"""Random stream of an episode, distinct from those of `envs.rendering.scene`."""


class RandomActor:
    """Uniform random actions in [low, high]. They depend only on the episode's seed, not on the slot or worker."""

    def __init__(self, action_dim: int, low: float | np.ndarray = -1.0, high: float | np.ndarray = 1.0) -> None:
        if not np.isfinite(np.subtract(high, low)).all():
            raise UserError(
                f"Random actions are drawn between the bounds of the action space, but the environment's are {low} and "
                f"{high}: without bounds, only policies can be evaluated in it."
            )
        if action_dim < 1 or not np.all(low < high):
            raise UserError(f"Random actions need a dimension >= 1 and low < high, got {action_dim}, {low}, {high}.")
        self._action_dim, self._low, self._high = action_dim, low, high
        self._generators: dict[int, np.random.Generator] = {}

    def reset(self, slot: int, seed: int) -> None:
        # A stream of its own: environments draw from default_rng(seed), and random actions must not know their goals.
        self._generators[slot] = np.random.default_rng([seed, STREAM])

    def needs_images(self, slot: int) -> bool:
        return False

    def act(self, frames: Mapping[int, Frame]) -> dict[int, np.ndarray]:
        return {
            slot: self._generators[slot].uniform(self._low, self._high, self._action_dim).astype(np.float32)
            for slot in frames
        }
