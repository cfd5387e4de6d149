"""States far outside the demonstrations cause one warning; plausible ones cause none."""

import numpy as np

from pixio_robot.state_range import StateWatch, WatchedActor
from pixio_robot.types import Frame

NAMES = ("shoulder [rad]", "elbow [rad]", "fixed [m]", "a", "b")
LOW, HIGH = [-1.0, 0.0, 0.3, 0, 0], [1.0, 0.5, 0.3, 1, 1]


def test_a_state_far_outside_is_named_with_its_range():
    words = StateWatch(NAMES, LOW, HIGH).words(np.array([57.0, 0.2, 0.3, 0, 0], np.float32))
    assert "shoulder [rad] is 57, in the demonstrations -1 to 1" in words
    assert "elbow" not in words


def test_small_excursions_and_constant_dimensions_cause_no_warning():
    watch = StateWatch(NAMES, LOW, HIGH)
    assert not watch.words(np.array([6.9, -1.4, 1000.0, 0, 0], np.float32))
    assert watch.words(np.array([7.1, 0, 0.3, 0, 0], np.float32))
    assert not watch.words(np.array([7.1, 0, 0.3, 0, 0], np.float32))


def test_only_the_first_of_many_dimensions_are_named():
    words = StateWatch(NAMES, LOW, HIGH).words(np.full(5, 100.0))
    assert "; a is 100" in words
    assert "b is" not in words
    assert "; and 1 more" in words


class Still:
    def __init__(self) -> None:
        self.seen = []

    def reset(self, slot, seed) -> None:
        self.seen.append((slot, seed))

    def needs_images(self, slot) -> bool:
        return slot == 1

    def act(self, frames):
        return {slot: frame.state[:1] for slot, frame in frames.items()}


def test_a_watched_actor_is_the_same_actor():
    told, actor = [], Still()
    watched = WatchedActor(actor, StateWatch(NAMES, LOW, HIGH), told.append)
    watched.reset(1, 7)
    assert actor.seen == [(1, 7)]
    assert [watched.needs_images(slot) for slot in (0, 1)] == [False, True]
    near, far = (Frame({}, np.full(5, value, np.float32)) for value in (0.3, 40.0))
    assert watched.act({0: near, 1: far})[1] == 40.0
    watched.act({0: far})
    assert len(told) == 1
