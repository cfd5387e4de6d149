"""A choice at a bit an image answers as the list of its numbers would."""

from __future__ import annotations

import tracemalloc

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pixio_robot.data.images.subsets import AllImages, BitSubset, ConcatenatedSubset


def bits(seed: int, count: int, share: float) -> np.ndarray:
    return np.random.default_rng(seed).random(count) < share


@given(
    seed=st.integers(0, 2**32),
    count=st.integers(0, 5000),
    share=st.sampled_from([0.0, 0.003, 0.5, 1.0]),
    block=st.integers(1, 200),
)
@settings(max_examples=80)
def test_it_is_the_list_of_its_numbers(seed: int, count: int, share: float, block: int) -> None:
    wanted = bits(seed, count, share)
    chosen = BitSubset(wanted[start : start + 8 * block] for start in range(0, count, 8 * block))
    numbers = np.flatnonzero(wanted)
    assert len(chosen) == len(numbers)
    assert np.array_equal(chosen.numbers(), numbers)
    positions = np.random.default_rng(seed).permutation(len(numbers))
    assert np.array_equal(chosen[positions], numbers[positions])


@given(seed=st.integers(0, 2**32), counts=st.lists(st.integers(0, 40), min_size=1, max_size=6))
@settings(max_examples=80)
def test_sources_are_numbered_on(seed: int, counts: list[int]) -> None:
    parts = [
        bits(seed + number, count, 0.5) if number % 2 else np.ones(count, bool) for number, count in enumerate(counts)
    ]
    choices = [BitSubset([part]) if number % 2 else AllImages(len(part)) for number, part in enumerate(parts)]
    chosen, numbers = ConcatenatedSubset(choices, counts), np.flatnonzero(np.concatenate(parts))
    assert len(chosen) == len(numbers)
    positions = np.random.default_rng(seed).permutation(len(numbers))
    assert np.array_equal(chosen[positions], numbers[positions])


def test_many_images_take_a_bit_each() -> None:
    block = bits(0, 1_000_000, 0.5)
    tracemalloc.start()
    chosen = BitSubset(block for _ in range(20))
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(chosen) == 20 * block.sum()
    assert kept < 20e6 / 8 * 1.2
