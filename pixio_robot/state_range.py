"""Warn about states far outside the range of the demonstrations, such as degrees where radians are expected.

Only a warning: a robot may legitimately leave the range of the demonstrations. Does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pixio_robot.types import Actor, Frame

MAX_RELATIVE_EXCESS = 3.0
"""How far a value may lie outside the demonstrations before a warning, in multiples of their range (maximum minus
minimum). Degrees given as radians are 57 times too large, millimetres given as metres 1000 times."""
CONSTANT_RANGE = 1e-4
"""Dimensions with a range below this, in their own unit, are treated as constant and ignored (as in normalisation)."""
MAX_NAMED = 3


class StateRangeMonitor:
    """Checks the states of one actor and warns once when a state is far outside the demonstrations."""

    def __init__(self, names: Sequence[str], low: Sequence[float], high: Sequence[float]) -> None:
        """names, low, high (s,): name, minimum and maximum of each state dimension in the demonstrations."""
        self._names, self._low, self._high = list(names), np.asarray(low, np.float64), np.asarray(high, np.float64)
        span = self._high - self._low
        self._margin = np.where(span < CONSTANT_RANGE, np.inf, MAX_RELATIVE_EXCESS * span)
        self._warned = False

    @classmethod
    def of(
        cls, names: Sequence[str], state_range: tuple[Sequence[float], Sequence[float]] | None
    ) -> StateRangeMonitor | None:
        """state_range: minimum and maximum; None for a policy that does not use the state, which needs no monitor."""
        return None if state_range is None else cls(names, *state_range)

    def check(self, state: np.ndarray) -> str:
        """The warning for a state (s,); empty if the state is in range or a warning was already given."""
        if self._warned:
            return ""
        far = np.flatnonzero(np.maximum(self._low - state, state - self._high) > self._margin)
        if not len(far):
            return ""
        self._warned = True
        parts = [
            f"{self._names[i]} is {state[i]:.4g}, in the demonstrations {self._low[i]:.4g} to {self._high[i]:.4g}"
            for i in far[:MAX_NAMED].tolist()
        ]
        more = f"; and {len(far) - MAX_NAMED} more" if len(far) > MAX_NAMED else ""
        return (
            f"The state is far outside the range of the training demonstrations: {'; '.join(parts)}{more}. Is it in "
            "the same units? (This warning is shown once.)"
        )


class MonitoredActor:
    """A `types.Actor` wrapper that checks every state; `warn` receives the warning, once."""

    def __init__(self, actor: Actor, monitor: StateRangeMonitor, warn: Callable[[str], None]) -> None:
        self._actor, self._monitor, self._warn = actor, monitor, warn

    def reset(self, slot: int, seed: int) -> None:
        self._actor.reset(slot, seed)

    def needs_images(self, slot: int) -> bool:
        return self._actor.needs_images(slot)

    def act(self, frames: Mapping[int, Frame]) -> dict[int, np.ndarray]:
        for frame in frames.values():
            if warning := self._monitor.check(np.asarray(frame.state)):
                self._warn(warning)
        return self._actor.act(frames)
