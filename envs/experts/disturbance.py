"""Disturbances during the recording of an expert, so that demonstrations show how to recover from mistakes."""

from __future__ import annotations

import dataclasses

import numpy as np

from pixio_robot.fields import check_fields, number

_NOISE_STREAM, _MISTAKE_STREAM = 2, 4
"""Random streams of an episode, distinct from those of `envs.rendering.scene` and 3 (random play)."""

_MISTAKE_STEPS = (4, 11)
"""Duration of a mistake in control steps: at least the first number, less than the second."""

_GRIPPER_OPENS_SHARE = 0.5
"""Fraction of the mistakes in which the gripper opens too."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Disturbance:
    """How the executed action differs from the expert's action, which is the one that is recorded.

    noise: standard deviation of Gaussian noise on all dimensions but the gripper's, in units of the action, whose range
    is -1 to 1 (DART, Laskey et al. 2017). mistakes: probability per step that a mistake begins: for 4 to 10 steps the
    arm drifts in a random direction, and in half of the mistakes the gripper opens.
    """

    noise: float = number(0.0, at_least=0, at_most=1)
    mistakes: float = number(0.0, at_least=0, at_most=1)

    def __post_init__(self) -> None:
        check_fields(self)

    def __str__(self) -> str:
        mistakes = f", mistakes {self.mistakes}" if self.mistakes else ""
        return f"noise {self.noise}{mistakes}"


class Disturber:
    """Disturbs the actions of the episode with that seed, in order. `rng` is the episode's generator; `errs` tells
    whether the latest action was replaced by a mistake."""

    def __init__(self, settings: Disturbance, seed: int) -> None:
        self._settings = settings
        self.rng = np.random.default_rng([seed, _NOISE_STREAM])
        self._mistakes = np.random.default_rng([seed, _MISTAKE_STREAM])
        self.errs = False
        self._left = 0
        self._drift = np.zeros(0)
        self._opens_gripper = False

    def __call__(self, action: np.ndarray) -> np.ndarray:
        """The action to execute instead of the expert's action (a,), whose last dimension is the gripper."""
        settings, motion = self._settings, len(action) - 1
        noise = np.append(self.rng.normal(0.0, settings.noise, motion), 0.0) if settings.noise else 0.0
        executed = np.clip(action + noise, -1, 1)
        if settings.mistakes and self._left == 0 and self._mistakes.random() < settings.mistakes:
            self._left = int(self._mistakes.integers(*_MISTAKE_STEPS))
            self._drift = self._mistakes.uniform(-1, 1, motion)
            self._opens_gripper = bool(self._mistakes.random() < _GRIPPER_OPENS_SHARE)
        self.errs = self._left > 0
        if self.errs:
            self._left -= 1
            executed[:motion] = self._drift
            if self._opens_gripper:
                executed[motion] = -1.0
        return executed
