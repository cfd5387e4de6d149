"""Which frames of a video to take, decided from their times alone."""

from __future__ import annotations

import dataclasses
import math

from pixio_robot.choice import Choice


class Sampling(Choice):
    """Which frames of a video to take. rate: `frames_per_second`; every: every n-th frame, with n = `every`;
    keyframes: key frames only, about ten times faster."""

    RATE = "rate"
    EVERY = "every"
    KEYFRAMES = "keyframes"


@dataclasses.dataclass(kw_only=True)
class Sampler:
    """Call `takes` once for every frame, in order. KEYFRAMES takes every frame: the decoder passes only key frames."""

    sampling: Sampling
    frames_per_second: float
    every: int
    _number: int = -1
    _due: int = 0

    def takes(self, since_s: float) -> bool:
        """Whether to take the frame `since_s` seconds after the first one.

        RATE takes the first frame at or after every multiple of 1 / `frames_per_second`; a gap in the footage does not
        lead to repeated frames.
        """
        self._number += 1
        if self.sampling is Sampling.EVERY:
            return self._number % self.every == 0
        if self.sampling is Sampling.KEYFRAMES:
            return True
        # A tolerance of a hundredth of an interval: 0.2499999 s counts as 0.25 s.
        tick = math.floor(since_s * self.frames_per_second + 0.01)
        if tick < self._due:
            return False
        self._due = tick + 1
        return True
