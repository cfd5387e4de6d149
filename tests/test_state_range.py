"""States far outside the demonstrations cause one warning; plausible ones cause none."""

import numpy as np

from pixio_robot.state_range import MonitoredActor, StateRangeMonitor
from pixio_robot.types import Frame

NAMES = ("shoulder [rad]", "elbow [rad]", "fixed [m]", "a", "b")
LOW, HIGH = [-1.0, 0.0, 0.3, 0, 0], [1.0, 0.5, 0.3, 1, 1]


def test_a_state_far_outside_is_named_with_its_range():
    warning = StateRangeMonitor(NAMES, LOW, HIGH).check(np.array([57.0, 0.2, 0.3, 0, 0], np.float32))
    assert "shoulder [rad] is 57, in the demonstrations -1 to 1" in warning
    assert "elbow" not in warning


def test_small_excursions_and_constant_dimensions_cause_no_warning():
    watch = StateRangeMonitor(NAMES, LOW, HIGH)
    assert not watch.check(np.array([6.9, -1.4, 1000.0, 0, 0], np.float32))
    assert watch.check(np.array([7.1, 0, 0.3, 0, 0], np.float32))
    assert not watch.check(np.array([7.1, 0, 0.3, 0, 0], np.float32))


def test_only_the_first_of_many_dimensions_are_named():
    warning = StateRangeMonitor(NAMES, LOW, HIGH).check(np.full(5, 100.0))
    assert "; a is 100" in warning
    assert "b is" not in warning
    assert "; and 1 more" in warning


class Still:
    def __init__(self) -> None:
        self.seen = []

    def reset(self, slot, seed) -> None:
        self.seen.append((slot, seed))

    def needs_images(self, slot) -> bool:
        return slot == 1

    def act(self, frames):
        return {slot: frame.state[:1] for slot, frame in frames.items()}


def test_monitored_actor_behaves_like_its_actor():
    told, actor = [], Still()
    watched = MonitoredActor(actor, StateRangeMonitor(NAMES, LOW, HIGH), told.append)
    watched.reset(1, 7)
    assert actor.seen == [(1, 7)]
    assert [watched.needs_images(slot) for slot in (0, 1)] == [False, True]
    near, far = (Frame({}, np.full(5, value, np.float32)) for value in (0.3, 40.0))
    assert watched.act({0: near, 1: far})[1] == 40.0
    watched.act({0: far})
    assert len(told) == 1
