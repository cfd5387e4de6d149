import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demo_data import make_episode, make_store
from hypothesis import given
from hypothesis import strategies as st

from pixio_robot.data import stats
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.stats import (
    DIRECTORY,
    QUANTILE_LEVELS,
    Statistics,
    cached_statistics,
    compute_range,
    compute_statistics,
    hash_episodes,
)
from pixio_robot.errors import UserError


def test_streaming_equals_numpy_on_the_chosen_episodes(tmp_path: Path) -> None:
    statistics = compute_statistics(make_store(tmp_path / "s", episodes=5), [0, 2, 3])
    for name, values in (("state", statistics.state), ("actions", statistics.actions)):
        rows = np.concatenate([getattr(make_episode(seed), name) for seed in (0, 2, 3)]).astype(np.float64)
        np.testing.assert_allclose(values.mean, rows.mean(0), rtol=1e-12)
        np.testing.assert_allclose(values.std, rows.std(0), rtol=1e-12)
        assert np.array_equal(values.minimum, rows.min(0))
        assert np.array_equal(values.maximum, rows.max(0))
        for quantile, level in QUANTILE_LEVELS.items():
            np.testing.assert_allclose(getattr(values, quantile), np.quantile(rows, level, axis=0), rtol=1e-12)


def test_a_large_offset_does_not_cost_the_spread() -> None:
    rows = np.random.default_rng(0).normal(size=(1000, 2)) + 1e8
    np.testing.assert_allclose(compute_range(np.split(rows, 10), len(rows)).std, rows.std(0), rtol=1e-6)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6).filter(any), st.integers(0, 99))
def test_how_rows_are_cut_into_parts_does_not_matter(sizes: list[int], seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(sum(sizes), 3)) * [1e-3, 1.0, 1e3]
    found = compute_range(np.split(rows, np.cumsum(sizes)[:-1]), len(rows))
    for name, value in (
        ("mean", rows.mean(0)),
        ("std", rows.std(0)),
        ("minimum", rows.min(0)),
        ("maximum", rows.max(0)),
    ):
        np.testing.assert_allclose(getattr(found, name), value, rtol=1e-9, atol=1e-12)


def test_json_round_trip(tmp_path: Path) -> None:
    statistics = compute_statistics(make_store(tmp_path / "s"), [0])
    again = Statistics.from_json(json.loads(json.dumps(statistics.to_json())))
    for which in ("state", "actions"):
        for name, value in vars(getattr(statistics, which)).items():
            assert np.array_equal(getattr(getattr(again, which), name), value)


def test_they_are_kept_for_the_very_episodes(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", episodes=3)
    first = cached_statistics(store, [0, 1])
    kept = list((store.path / DIRECTORY).iterdir())
    assert [path.stem for path in kept] == [hash_episodes(store, [0, 1])]
    # Read, not computed again: what the file says comes back.
    kept[0].write_text(kept[0].read_text().replace(str(first.state.mean[0]), "123.5"))
    assert cached_statistics(store, [0, 1]).state.mean[0] == 123.5
    # Other episodes, and the same numbers with other contents, are something else.
    assert cached_statistics(store, [0, 2]).state.mean[0] != 123.5
    for number, seed in ((0, 10), (1, 11)):
        shutil.rmtree(store.episode_path(number))
        other = make_store(tmp_path / f"other{number}", episodes=0)
        other.append(make_episode(seed, length=int(store.lengths[number])))
        shutil.copytree(other.episode_path(0), store.episode_path(number))
    assert cached_statistics(DemoStore.open(store.path), [0, 1]).state.mean[0] != 123.5


@pytest.mark.parametrize("changed", ["state", "actions"])
def test_an_episode_that_differs_in_one_of_both_is_another(tmp_path: Path, changed: str) -> None:
    store, other, same = (
        make_store(tmp_path / name, episodes=number) for name, number in (("a", 1), ("b", 0), ("c", 1))
    )
    episode = store.episode(0)
    other.append(dataclasses.replace(episode, **{changed: getattr(episode, changed) + 1}))
    assert hash_episodes(store, [0]) == hash_episodes(same, [0]) != hash_episodes(other, [0])


def test_quantiles_of_very_many_rows_are_those_of_rows_from_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "MAX_QUANTILE_ROWS", 4000)
    rows = np.linspace(0, 1, 40_000)[:, None]
    found = compute_range(np.split(rows, 4), len(rows))
    for name, level in QUANTILE_LEVELS.items():
        np.testing.assert_allclose(getattr(found, name), level, atol=0.03)
    assert (found.minimum, found.maximum) == (0, 1)


def test_of_nothing() -> None:
    with pytest.raises(UserError, match="no episode"):
        compute_range([], 0)


@pytest.mark.parametrize("statistics", [compute_statistics, cached_statistics])
def test_a_mask_is_not_taken_for_numbers(tmp_path: Path, statistics: Callable[..., Any]) -> None:
    store = make_store(tmp_path / "s", episodes=3)
    mask = store.lengths >= 0
    with pytest.raises(UserError, match="is a mask"):
        statistics(store, mask)
    for wrong in ([99], [-1], [0, 0]):
        with pytest.raises(UserError, match=r"[Ee]pisode"):
            statistics(store, wrong)
    assert statistics(store, np.flatnonzero(mask)).to_json() == statistics(store, range(3)).to_json()
