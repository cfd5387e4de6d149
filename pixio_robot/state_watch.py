"""A warning where a state lies far from all that a policy learned from, as degrees do where it learned from radians.

Not an error: a robot may well be where none of the demonstrations was. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pixio_robot.types import Actor, Frame

FAR = 3.0
"""Ranges of the demonstrations (highest minus lowest) by which a number may lie outside them. Degrees for radians are
57 times too large, millimetres for metres 1000 times."""
STILL = 1e-4
"""A number that varied less than this, in its own unit, says nothing of how far it may go (as in normalisation)."""
NAMED = 3


class StateWatch:
    """Looks at the states of one player, and says once what is far from the demonstrations."""

    def __init__(self, names: Sequence[str], low: Sequence[float], high: Sequence[float]) -> None:
        """names, low and high (s,): of each number its name, and its lowest and highest value in the demonstrations."""
        self._names, self._low, self._high = list(names), np.asarray(low, np.float64), np.asarray(high, np.float64)
        span = self._high - self._low
        self._reach = np.where(span < STILL, np.inf, FAR * span)
        self._said = False

    @classmethod
    def of(cls, names: Sequence[str], state_range: tuple[Sequence[float], Sequence[float]] | None) -> StateWatch | None:
        """state_range: lowest and highest; None for a policy that does not feel its state, which nobody watches."""
        return None if state_range is None else cls(names, *state_range)

    def words(self, state: np.ndarray) -> str:
        """What to say of a state (s,) with its names; empty where there is nothing, and after the first time."""
        if self._said:
            return ""
        far = np.flatnonzero(np.maximum(self._low - state, state - self._high) > self._reach)
        if not len(far):
            return ""
        self._said = True
        parts = [
            f"{self._names[i]} is {state[i]:.4g}, which was {self._low[i]:.4g} to {self._high[i]:.4g}"
            for i in far[:NAMED].tolist()
        ]
        more = f"; and {len(far) - NAMED} more" if len(far) > NAMED else ""
        return (
            f"The state is far from the demonstrations that the policy learned from: {'; '.join(parts)}{more}. Is it "
            "in the same units? (Said once.)"
        )


class WatchedActor:
    """A `types.Actor` whose states are looked at: `tell` is given the words, once."""

    def __init__(self, actor: Actor, watch: StateWatch, tell: Callable[[str], None]) -> None:
        self._actor, self._watch, self._tell = actor, watch, tell

    def reset(self, slot: int, seed: int) -> None:
        self._actor.reset(slot, seed)

    def needs_images(self, slot: int) -> bool:
        return self._actor.needs_images(slot)

    def act(self, frames: Mapping[int, Frame]) -> dict[int, np.ndarray]:
        for frame in frames.values():
            if words := self._watch.words(np.asarray(frame.state)):
                self._tell(words)
        return self._actor.act(frames)
