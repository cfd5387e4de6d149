"""Pauses: found where nothing moves, and cut where an episode begins with one."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from demo_data import SPEC, make_episode

from pixio_robot.data.demos.editing.rewrite import select_episodes, write_stores
from pixio_robot.data.demos.editing.trim import trim_pauses
from pixio_robot.data.demos.overridden_steps import OVERRIDDEN_STEPS
from pixio_robot.data.demos.pauses import Pauses, describe_pauses, find_pauses
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.demos.verify import TIMESTAMPS, verify_store
from pixio_robot.errors import UserError
from pixio_robot.types import Episode

RESTS = ((11, 0, 0), (7, 9, 6), (0, 0, 0), (3, 0, 2))
"""Steps of rest at the start, in the middle and at the end; at 10 Hz, five are half a second."""


def rests(seed: int, start: int, middle: int, end: int) -> Episode:
    """Twice twenty steps of motion between rests, in which the state trembles a little, as an encoder does."""
    rng = np.random.default_rng(seed)
    moves = [*[0] * start, *[1] * 20, *[0] * middle, *[1] * 20, *[0] * end]
    path = np.cumsum(np.array(moves)[:, None] * rng.uniform(0.5, 1.5, (len(moves), 1)), axis=0) - rng.uniform(0, 1)
    state = path * np.array([1.0, -2.0, 0.001]) + rng.normal(0, 2e-6, (len(moves), 3))
    info = {OVERRIDDEN_STEPS: [start, start + 21], TIMESTAMPS: (np.arange(len(moves)) / 10).tolist()}
    whole = make_episode(seed, len(moves))
    actions = path * np.array([1.0, 3.0])
    return dataclasses.replace(whole, state=np.float32(state), actions=np.float32(actions), info=info)


@pytest.fixture
def store(tmp_path: Path) -> DemoStore:
    store = DemoStore.create(tmp_path / "demos", SPEC)
    for seed, lengths in enumerate(RESTS):
        store.append(rests(seed, *lengths))
    return store


def test_half_a_second_without_motion_is_a_pause(store: DemoStore) -> None:
    # A rest also contains the step before it, whose state is the same.
    assert find_pauses(store) == [Pauses(11, 0, 11), Pauses(7, 7, 24), Pauses(0, 0, 0), Pauses(0, 0, 0)]
    text = describe_pauses(find_pauses(store), int(store.lengths.sum()), 10.0)
    assert text.startswith(
        "pauses, in which nothing moves: 18% of the steps, 2 of 4 episodes begin with one (median 0.9 s)"
    )
    assert text.endswith("1 of 4 episodes end with one (median 0.7 s); `data trim` cuts those at the start")
    assert describe_pauses([Pauses(0, 0, 3)], 100, 10.0) == ""


def test_a_robot_that_moves_on_while_its_command_rests_does_not_pause(tmp_path: Path) -> None:
    """Constant deltas, or constant targets that it has not reached yet."""
    store = DemoStore.create(tmp_path / "demos", SPEC)
    episode = rests(0, 0, 0, 0)
    store.append(dataclasses.replace(episode, actions=np.full_like(episode.actions, 0.3)))
    store.append(dataclasses.replace(episode, state=np.full_like(episode.state, 0.3)))
    assert find_pauses(store) == [Pauses(0, 0, 0)] * 2


def test_pauses_before_the_motion_are_cut(store: DemoStore, tmp_path: Path) -> None:
    edit = trim_pauses(store, end=False, keep_s=0.0)
    write_stores(tmp_path / "cut", {"": select_episodes(store, edit=edit)})
    cut = DemoStore.open(tmp_path / "cut")
    assert verify_store(cut) == []
    assert edit.notes == (f"cut 18 of {store.lengths.sum()} steps from 2 of 4 episodes",)
    for number, (start, *_) in enumerate(RESTS):
        first = start if start >= 5 else 0
        before, after = store.episode(number), cut.episode(number)
        np.testing.assert_array_equal(after.state, before.state[first:])
        np.testing.assert_array_equal(after.actions, before.actions[first:])
        np.testing.assert_array_equal(after.rewards, before.rewards[first:])
        np.testing.assert_array_equal(after.images["front"], before.images["front"][first:])
        assert after.info[TIMESTAMPS] == before.info[TIMESTAMPS][first:]
        assert after.info[OVERRIDDEN_STEPS] == [start - first, start - first + 21]
        assert (after.seed, after.success) == (before.seed, before.success)
    with pytest.raises(UserError, match=r"No episode of .*cut begins with a pause of more than 0 s"):
        trim_pauses(cut, end=False, keep_s=0.0)


def test_a_part_can_be_kept_and_ends_cut(store: DemoStore, tmp_path: Path) -> None:
    write_stores(tmp_path / "cut", {"": select_episodes(store, edit=trim_pauses(store, end=True, keep_s=0.2))})
    assert (store.lengths - DemoStore.open(tmp_path / "cut").lengths).tolist() == [9, 5 + 5, 0, 0]
    with pytest.raises(UserError, match="keep_s=-1 must not be negative"):
        trim_pauses(store, end=True, keep_s=-1)


def test_an_episode_in_which_nothing_moves_stays(tmp_path: Path) -> None:
    store = DemoStore.create(tmp_path / "demos", SPEC)
    moving = rests(0, 10, 0, 0)
    store.append(moving)
    store.append(dataclasses.replace(moving, state=moving.state * 0, actions=moving.actions * 0))
    store.append(make_episode(3, 3))  # shorter than a pause
    assert find_pauses(store)[1] == Pauses(50, 50, 50)
    assert "data trim" not in describe_pauses([Pauses(50, 50, 50)], 50, 10.0)
    write_stores(tmp_path / "cut", {"": select_episodes(store, edit=trim_pauses(store, end=True, keep_s=0))})
    assert DemoStore.open(tmp_path / "cut").lengths.tolist() == [40, 50, 3]
