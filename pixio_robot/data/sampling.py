"""Which frames of a moving picture are taken, decided from their times alone."""

from __future__ import annotations

import dataclasses
import math

from pixio_robot.choice import Choice


class Sampling(Choice):
    """Which frames of a video are taken: so many a second, every n-th, or the key frames."""

    RATE = "rate"
    EVERY = "every"
    KEYFRAMES = "keyframes"


@dataclasses.dataclass(kw_only=True)
class Sampler:
    """Asked once for every frame, in order. KEYFRAMES takes all it is shown: the decoder shows it nothing else."""

    sampling: Sampling
    frames_per_second: float
    every: int
    _number: int = -1
    _due: int = 0

    def takes(self, since_s: float) -> bool:
        """Whether to take the frame that is shown `since_s` seconds after the first one.

        RATE takes the first frame at or after every multiple of 1 / `frames_per_second`, so a gap in the footage
        gives no repeated frames.
        """
        self._number += 1
        if self.sampling is Sampling.EVERY:
            return self._number % self.every == 0
        if self.sampling is Sampling.KEYFRAMES:
            return True
        # A hundredth of an interval of slack: 0.2499999 s is the frame of 0.25 s.
        tick = math.floor(since_s * self.frames_per_second + 0.01)
        if tick < self._due:
            return False
        self._due = tick + 1
        return True
