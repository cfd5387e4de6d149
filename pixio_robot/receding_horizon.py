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


def check_execute(execute: int, horizon: int) -> None:
    """Raise UserError unless 1 <= execute <= horizon."""
    if not 1 <= execute <= horizon:
        raise UserError(f"execute = {execute} must lie between 1 and the policy's horizon, {horizon}.")


class RecedingHorizon:
    """Action queue of one episode: takes frames and action chunks, yields one action per step.

    At each step: `add_frame`, then `add_chunk` if `needs_chunk`, then take the `next_action`.
    """

    def __init__(
        self,
        observation_steps: int,
        execute: int,
        ensemble_weight: float | None = None,
        quaternions: Sequence[int] = (),
    ):
        """`ensemble_weight`: average all earlier predictions for a step with weights exp(-w i), i = 0 the oldest
        (temporal ensembling, ACT, Zhao et al. 2023; they use w = .01 with execute = 1); None uses the newest only. Of a
        dimension with two values, such as a gripper that is open or closed, the value nearer to the average is used.
        `quaternions`: the first of the four columns of each quaternion; these are averaged as rotations."""
        self.step = 0
        self._frames: collections.deque[Frame] = collections.deque(maxlen=observation_steps)
        self._has_frame = False
        """Whether the frame of the current step is among them."""
        self._execute = execute
        self._weight = ensemble_weight
        self._quaternions = quaternions
        self._queue: collections.deque[np.ndarray] = collections.deque()
        self._chunks: list[tuple[int, np.ndarray]] = []
        """(first step, actions) of earlier calls, oldest first; kept only for temporal ensembling."""
        self._binary: _BinaryDimensions | None = None

    @property
    def uses_next_frame(self) -> bool:
        """Whether a policy call will use the frame that follows the next action (or the first frame)."""
        # With q actions still queued the next call comes q frames after the next one, and looks back over
        # `observation_steps` frames. The first frame is always used: it pads the missing history.
        return len(self._queue) < (self._frames.maxlen or 0)

    @property
    def retains_next_frame(self) -> bool:
        """Whether the next frame may also be used by a later policy call, so that its arrays must stay as they are."""
        return self.uses_next_frame and (self._frames.maxlen or 0) > 1

    @property
    def needs_chunk(self) -> bool:
        """Whether the queue is empty and the next action needs a new chunk."""
        return not self._queue

    @property
    def frames(self) -> Sequence[Frame]:
        """The observation history, newest frame last; the first frame of an episode pads the missing history."""
        return self._frames

    def add_frame(self, frame: Frame) -> None:
        """Add the frame of the current step. Another one for the same step takes its place: the call of the policy that
        was to use the first has failed."""
        if self._has_frame:
            self._frames.pop()
        self._frames.extend([frame] * (1 if self.step else self._frames.maxlen or 0))
        self._has_frame = True

    def add_chunk(self, chunk: np.ndarray) -> None:
        """Add a chunk (n, a) that starts at the current step; n >= `execute`."""
        if self._weight is None:
            self._queue.extend(chunk[: self._execute].copy())
            return
        self._chunks = [(start, old) for start, old in self._chunks if start + len(old) > self.step]
        self._chunks.append((self.step, chunk))
        values = _BinaryDimensions(chunk)
        if self._binary is None:
            self._binary = values
        else:
            self._binary.add(values)
        for step in range(self.step, self.step + self._execute):
            predictions = [old[step - start] for start, old in self._chunks if step < start + len(old)]
            weights = [math.exp(-self._weight * age) for age in range(len(predictions))]
            average = self._average(np.array(predictions), weights)
            self._queue.append(self._binary.snap(average).astype(chunk.dtype))

    def _average(self, predictions: np.ndarray, weights: Sequence[float]) -> np.ndarray:
        """Predictions (n, a), the newest last -> their average (a,)."""
        quaternions = [slice(first, first + 4) for first in self._quaternions]
        for columns in quaternions:  # of the two quaternions of each rotation, the one on the newest one's side
            values = predictions[:, columns]
            values[values @ values[-1] < 0] *= -1
        average = np.average(predictions, axis=0, weights=weights)
        for columns in quaternions:  # the mean of unit quaternions is shorter, and in its direction their mean rotation
            average[columns] *= np.linalg.norm(predictions[-1, columns]) / (np.linalg.norm(average[columns]) or 1)
        return average

    def next_action(self) -> np.ndarray:
        self.step += 1
        self._has_frame = False
        return self._queue.popleft()


class _BinaryDimensions:
    """Detects the dimensions in which all predictions of an episode are one of two values, such as a gripper that is
    open or closed. They are detected because clients of a policy server know nothing else about the policy.

    Continuous predictions of different calls are never equal, so one of the values must occur in two calls.
    """

    def __init__(self, chunk: np.ndarray):
        self.low, self.high = chunk.min(axis=0), chunk.max(axis=0)
        self._only_two = ((chunk == self.low) | (chunk == self.high)).all(axis=0)
        self._repeated = np.zeros(self.low.shape, bool)

    def add(self, later: _BinaryDimensions) -> None:
        ends = np.stack([self.low, self.high, later.low, later.high])
        self._repeated |= (ends[:2, None] == ends[None, 2:]).any(axis=(0, 1))
        self.low, self.high = ends.min(axis=0), ends.max(axis=0)
        self._only_two &= later._only_two & ((ends == self.low) | (ends == self.high)).all(axis=0)

    def snap(self, average: np.ndarray) -> np.ndarray:
        """The average (a,), with the nearer value in the dimensions that have two."""
        nearer = np.where(average * 2 > self.low + self.high, self.high, self.low)
        return np.where(self._only_two & self._repeated, nearer, average)
