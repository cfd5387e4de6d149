"""Windows never leave their episode, and padding is exactly what lies beyond its end."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixio_robot.data.windows import Windows, check_episode_numbers, split_episodes
from pixio_robot.errors import UserError

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=6)


@given(LENGTHS, st.integers(1, 4), st.integers(1, 12))
def test_laws(lengths: list[int], observation_steps: int, horizon: int) -> None:
    windows = Windows(np.array(lengths), observation_steps, horizon)
    assert len(windows) == sum(lengths)
    located = windows.locate(np.arange(len(windows)))
    length = np.array(lengths)[located.episode][:, None]
    assert ((located.frames >= 0) & (located.frames < length)).all()
    assert ((located.actions >= 0) & (located.actions < length)).all()
    step = located.frames[:, -1:]
    assert np.array_equal(located.actions[:, :1], step)
    assert np.array_equal(located.frames, np.maximum(step + np.arange(1 - observation_steps, 1), 0))
    assert np.array_equal(located.ignored, step + np.arange(horizon) >= length)
    # Every step of every episode is looked at exactly once.
    assert sorted(zip(located.episode.tolist(), step[:, 0].tolist(), strict=True)) == [
        (e, t) for e, n in enumerate(lengths) for t in range(n)
    ]


@given(LENGTHS, st.integers(1, 12), st.integers(0, 3), st.integers(0, 4))
def test_the_longest_padding_at_an_end(lengths: list[int], horizon: int, past_actions: int, most: int) -> None:
    past_actions = min(past_actions, horizon - 1)
    whole = Windows(np.array(lengths), 1, horizon, past_actions=past_actions)
    located = whole.locate(np.arange(len(whole)))
    steps = located.frames[:, 0]
    beyond = steps - past_actions + horizon - np.array(lengths)[located.episode]
    expected = list(zip(located.episode[beyond <= most].tolist(), steps[beyond <= most].tolist(), strict=True))
    if not expected:
        with pytest.raises(UserError, match="not fit into episodes of up to"):
            Windows(np.array(lengths), 1, horizon, past_actions=past_actions, max_padding=most)
        return
    fewer = Windows(np.array(lengths), 1, horizon, past_actions=past_actions, max_padding=most)
    found = fewer.locate(np.arange(len(fewer)))
    assert list(zip(found.episode.tolist(), found.frames[:, 0].tolist(), strict=True)) == expected
    assert not found.ignored.any()


@given(LENGTHS, st.integers(0, 3), st.sampled_from([None, 100]), st.data())
def test_actions_after_an_overridden_step_are_ignored(
    lengths: list[int], past_actions: int, max_padding: int | None, data: st.DataObject
) -> None:
    overridden = [data.draw(st.lists(st.booleans(), min_size=length, max_size=length)) for length in lengths]
    rows = np.array([step for episode in overridden for step in episode])
    settings: dict[str, Any] = {"past_actions": past_actions, "max_padding": max_padding}
    windows = Windows(np.array(lengths), 1, 6, **settings, overridden=rows)
    located = windows.locate(np.arange(len(windows)))
    before = Windows(np.array(lengths), 1, 6, **settings).locate(np.arange(len(windows)))
    assert np.array_equal(located.actions, before.actions)
    for number, episode in enumerate(located.episode):
        step = located.frames[number, 0]
        reacts = [any(overridden[episode][step:action]) for action in located.actions[number]]
        assert located.ignored[number].tolist() == (before.ignored[number] | reacts).tolist()


def test_only_chosen_episodes() -> None:
    windows = Windows(np.array([3, 4, 5]), 1, 1, episodes=[2, 0])
    assert len(windows) == 8
    assert set(windows.locate(np.arange(8)).episode.tolist()) == {0, 2}


@pytest.mark.parametrize(
    ("episodes", "words"),
    [
        ([True, False, True], r"is a mask, .* np\.flatnonzero\(mask\)"),
        (np.array([True, False, True]), "is a mask"),
        ([0, 2, 0], "Episode 0 is chosen more than once"),
        ([0, 3], r"no episode 3: the store has episodes 0\.\.2"),
        ([-1], "no episode -1"),
        ([0.0, 1.0], "whole numbers, not float64"),
        (np.array([[0, 1]]), r"of shape \(1, 2\)"),
    ],
)
def test_episodes_are_chosen_by_number(episodes: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Windows(np.array([3, 4, 5]), 1, 1, episodes)
    with pytest.raises(UserError, match=words):
        check_episode_numbers(iter(episodes), 3) if isinstance(episodes, list) else check_episode_numbers(episodes, 3)


@pytest.mark.parametrize(
    ("steps", "horizon", "episodes"), [(0, 1, None), (1, 0, None), (1, 1, []), (1, 1, [1]), (1, 1, [-1])]
)
def test_nonsense_is_refused(steps: int, horizon: int, episodes: list[int] | None) -> None:
    with pytest.raises(UserError):
        Windows(np.array([3]), steps, horizon, episodes)


@given(LENGTHS, st.data())
def test_a_batch_is_its_windows_one_by_one(lengths: list[int], data: st.DataObject) -> None:
    windows = Windows(np.array(lengths), 2, 3)
    indices = np.array(data.draw(st.lists(st.integers(0, len(windows) - 1), min_size=1, max_size=8)))
    together = windows.locate(indices)
    for row, index in enumerate(indices):
        alone = windows.locate(np.array([index]))
        for name in ("episode", "frames", "actions", "ignored"):
            assert np.array_equal(getattr(together, name)[row], getattr(alone, name)[0])


@pytest.mark.parametrize("index", [-1, 12])
def test_windows_that_are_not_there(index: int) -> None:
    with pytest.raises(IndexError, match=r"windows 0\.\.11"):
        Windows(np.array([3, 4, 5]), 1, 1).locate(np.array([0, index]))


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_beyond_its_range_is_refused(share: float) -> None:
    with pytest.raises(UserError, match="validation_share"):
        split_episodes(4, share, 0)


@given(st.integers(1, 50), st.floats(0, 0.99), st.integers(0, 5))
def test_split_is_a_partition(count: int, share: float, seed: int) -> None:
    training, validation = split_episodes(count, share, seed)
    assert sorted(training + validation) == list(range(count))
    assert training
    assert (training, validation) == split_episodes(count, share, seed)
    assert bool(validation) == (share > 0 and count > 1)
    assert abs(len(validation) - share * count) <= 1


@given(st.integers(1, 50), st.floats(0.01, 0.99), st.integers(0, 5), st.floats(0, 0.99), st.integers(0, 5))
def test_what_was_learned_is_not_held_out(count: int, share: float, seed: int, later: float, other: int) -> None:
    learned, held_out = split_episodes(count, share, seed)
    training, validation = split_episodes(count, later, other, learned)
    assert sorted(training + validation) == list(range(count))
    assert training
    assert not set(validation) & set(learned)
    if later == share:
        assert validation == held_out
