"""The computed shuffle: a permutation for every count, different for every seed and epoch, and fair."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixio_robot.data.shuffle import Shuffle


@given(count=st.integers(1, 3000), seed=st.integers(0, 2**40), epoch=st.integers(0, 1000))
@settings(max_examples=150)
def test_every_index_once(count: int, seed: int, epoch: int) -> None:
    order = Shuffle(count, seed, epoch).at(np.arange(count))
    assert np.array_equal(np.sort(order), np.arange(count))


def test_a_part_is_that_part_of_the_whole() -> None:
    shuffle = Shuffle(1000, 3, 4)
    whole = shuffle.at(np.arange(1000))
    assert np.array_equal(shuffle.at(np.array([7, 900, 7])), whole[[7, 900, 7]])
    assert not np.array_equal(whole, Shuffle(1000, 3, 5).at(np.arange(1000)))
    assert not np.array_equal(whole, Shuffle(1000, 4, 4).at(np.arange(1000)))


def test_a_hundred_million_frames_cost_no_memory() -> None:
    positions = np.random.default_rng(0).integers(0, 10**8, 10_000)
    order = Shuffle(10**8, 0, 0).at(positions)
    assert order.min() >= 0
    assert order.max() < 10**8
    assert len(np.unique(order)) == len(np.unique(positions))
    # Uniform: the largest distance to the straight line is that of chance (Kolmogorov, 1 in 1000).
    shares = np.sort(order) / 1e8
    assert np.abs(shares - np.linspace(0, 1, len(shares))).max() < 1.95 / np.sqrt(len(shares))


@pytest.mark.slow
def test_fair_over_seeds() -> None:
    """Every index is equally likely at every position, and so is every pair of neighbours."""
    count, draws = 7, 4000
    orders = np.array([Shuffle(count, seed, 0).at(np.arange(count)) for seed in range(draws)])
    for position in range(count):
        found = np.bincount(orders[:, position], minlength=count)
        assert ((found - draws / count) ** 2 / (draws / count)).sum() < 24  # chi square, 6 degrees, 1 in 2000
    pairs = np.bincount(orders[:, 0] * count + orders[:, 1], minlength=count**2)
    expected = draws / (count * (count - 1))
    found = pairs[[i * count + j for i in range(count) for j in range(count) if i != j]]
    assert ((found - expected) ** 2 / expected).sum() < 78  # 41 degrees, 1 in 2000
