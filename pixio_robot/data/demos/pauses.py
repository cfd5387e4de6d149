"""Pauses: the steps in which neither the robot nor what it is told moves.

People who demonstrate hesitate, most of all before they begin. A policy that has seen a robot wait where it stands may
do so too, and never begin.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.stats import Range, cached_statistics

PAUSE_S = 0.5
"""Shorter rests are not pauses."""
STILL = 0.005
"""A column that moves by less than this share of its range within PAUSE_S is still: more than an encoder's noise, less
than any motion with a purpose."""


@dataclasses.dataclass(frozen=True)
class Pauses:
    """Of one episode: `start` and `end` are the lengths of the pauses it begins and ends with, 0 if it does not; the
    whole episode is both if nothing moves. `total` counts all steps in pauses."""

    start: int
    end: int
    total: int


class PauseFinder:
    """Finds the pauses in episodes of a store, whose ranges say what is a small motion."""

    def __init__(self, store: DemoStore) -> None:
        statistics = cached_statistics(store, range(len(store)))
        self._still = STILL * np.concatenate([_span(statistics.state), _span(statistics.actions)])
        self._window = max(2, round(PAUSE_S * store.spec.control_hz))

    def find(self, state: np.ndarray, actions: np.ndarray) -> Pauses:
        """state (n, s), actions (n, a)."""
        paused = self._paused(np.concatenate([state, actions], axis=1))
        moving = np.flatnonzero(~paused)
        if not len(moving):
            return Pauses(len(paused), len(paused), len(paused))
        return Pauses(int(moving[0]), len(paused) - 1 - int(moving[-1]), int(paused.sum()))

    def _paused(self, values: np.ndarray) -> np.ndarray:
        """bool (n,): the steps of all windows in which every column is still."""
        paused = np.zeros(len(values), bool)
        if len(values) < self._window:
            return paused
        windows = sliding_window_view(values, self._window, axis=0)  # (n - window + 1, columns, window)
        for first in np.flatnonzero((np.ptp(windows, axis=2) <= self._still).all(1)):
            paused[first : first + self._window] = True
        return paused


def _span(of: Range) -> np.ndarray:
    """The usual range of every column; the whole one where it hardly ever moves, as a gripper may."""
    usual = of.q99 - of.q01
    return np.where(usual > 0, usual, of.maximum - of.minimum)


def find_pauses(store: DemoStore) -> list[Pauses]:
    finder = PauseFinder(store)
    return [finder.find(store.state(episode), store.actions(episode)) for episode in range(len(store))]


def describe_pauses(pauses: list[Pauses], steps: int, control_hz: float) -> str:
    """A line for people, of episodes of that many steps together; empty if there are hardly any pauses."""
    parts = [f"{sum(one.total for one in pauses) / max(steps, 1):.0%} of the steps"]
    starts, ends = [one.start for one in pauses if one.start], [one.end for one in pauses if one.end]
    for what, lengths in (("begin", starts), ("end", ends)):
        if lengths:
            median = f"median {np.median(lengths) / control_hz:.1f} s"
            parts.append(f"{len(lengths)} of {len(pauses)} episodes {what} with one ({median})")
    if len(parts) == 1 and sum(one.total for one in pauses) < 0.05 * steps:
        return ""
    can_be_cut = any(one.start and one.end < one.total for one in pauses)  # not where nothing moves at all
    remedy = "; `data trim` cuts those at the start" if can_be_cut else ""
    return f"pauses, in which nothing moves: {', '.join(parts)}{remedy}"
