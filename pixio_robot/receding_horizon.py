"""Receding-horizon execution: the one place where action chunks become one action per control step.

A policy's chunk starts at the step of its newest frame. The first `execute` actions are carried out, then the policy
is called again. Frames that no call will use need not be rendered, which saves most of the cost of a simulated step.
Clients of a policy server run this too, so it does not import torch.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Sequence

import numpy as np

from pixio_robot.errors import UserError
from pixio_robot.types import Frame

_Values = tuple[np.ndarray, np.ndarray, np.ndarray]
"""For each dimension (a,): lowest value, highest value, and whether there are no others."""


def check_execute(execute: int, horizon: int) -> None:
    """Raise UserError unless 1 <= execute <= horizon."""
    if not 1 <= execute <= horizon:
        raise UserError(f"execute = {execute} must lie between 1 and the policy's horizon, {horizon}.")


class RecedingHorizon:
    """Action queue of one episode: takes frames and action chunks, yields one action per step.

    At each step: `see` the frame, `plan` a new chunk if `hungry`, then take the `next_action`.
    """

    def __init__(self, observation_steps: int, execute: int, ensemble_weight: float | None = None):
        """`ensemble_weight`: average all earlier predictions for a step with weights exp(-w i), i = 0 the oldest
        (temporal ensembling, ACT, Zhao et al. 2023; they use w = .01 with execute = 1); None uses the newest only. Of a
        dimension with two values, such as a gripper that is open or closed, the value nearer to the average is used."""
        self.step = 0
        self._frames: collections.deque[Frame] = collections.deque(maxlen=observation_steps)
        self._execute = execute
        self._weight = ensemble_weight
        self._queue: collections.deque[np.ndarray] = collections.deque()
        self._chunks: list[tuple[int, np.ndarray]] = []
        """(first step, actions) of earlier calls, oldest first; kept only for temporal ensembling."""
        self._values: _Values | None = None
        """Those of all predictions of the episode; kept only for temporal ensembling."""

    @property
    def looks_next(self) -> bool:
        """Whether a policy call will use the frame that follows the next action (or the first frame)."""
        # With q actions still queued the next call comes q frames after the next one, and looks back over
        # `observation_steps` frames. The first frame is always used: it pads the missing history.
        return len(self._queue) < (self._frames.maxlen or 0)

    @property
    def keeps_next(self) -> bool:
        """Whether the next frame may also be used by a later policy call, so that its arrays must stay as they are."""
        return self.looks_next and (self._frames.maxlen or 0) > 1

    @property
    def hungry(self) -> bool:
        """Whether the queue is empty and the next action needs a new chunk."""
        return not self._queue

    @property
    def frames(self) -> Sequence[Frame]:
        """The observation history, newest frame last; the first frame of an episode pads the missing history."""
        return self._frames

    def see(self, frame: Frame) -> None:
        self._frames.extend([frame] * (1 if self._frames else self._frames.maxlen or 0))

    def plan(self, chunk: np.ndarray) -> None:
        """Add a chunk (n, a) that starts at the current step; n >= `execute`."""
        if self._weight is None:
            self._queue.extend(chunk[: self._execute].copy())
            return
        self._chunks = [(start, old) for start, old in self._chunks if start + len(old) > self.step]
        self._chunks.append((self.step, chunk))
        self._values = low, high, two_valued = _values_of(chunk, self._values)
        for step in range(self.step, self.step + self._execute):
            votes = [old[step - start] for start, old in self._chunks if step < start + len(old)]
            weights = [math.exp(-self._weight * age) for age in range(len(votes))]
            average = np.average(votes, axis=0, weights=weights)
            nearer = np.where(average * 2 > low + high, high, low)
            self._queue.append(np.where(two_valued, nearer, average).astype(chunk.dtype))

    def next_action(self) -> np.ndarray:
        self.step += 1
        return self._queue.popleft()


def _values_of(chunk: np.ndarray, earlier: _Values | None) -> _Values:
    """The values of a chunk (n, a) and of the earlier ones."""
    ends = np.stack([chunk.min(axis=0), chunk.max(axis=0), *([] if earlier is None else earlier[:2])])
    low, high = ends.min(axis=0), ends.max(axis=0)
    two_valued = np.all([*((chunk == low) | (chunk == high)), *((ends == low) | (ends == high))], axis=0)
    return low, high, two_valued if earlier is None else two_valued & earlier[2]
