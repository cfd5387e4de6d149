"""What the scores of single frames promise."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixio_robot.data.curation.pixel_scores import ENTROPY_BINS, colour_entropy, exposure, sharpness


@given(colour=st.tuples(*[st.integers(0, 255)] * 3), height=st.integers(1, 40), width=st.integers(1, 40))
@settings(max_examples=50)
def test_one_colour_has_no_entropy(colour: tuple[int, int, int], height: int, width: int) -> None:
    image = np.full((height, width, 3), colour, np.uint8)
    assert colour_entropy(image) == 0.0


def test_all_bins_alike_have_the_highest_entropy() -> None:
    levels = [256 // ENTROPY_BINS * number for number in range(ENTROPY_BINS)]
    image = np.array(list(itertools.product(levels, repeat=3)), np.uint8).reshape(16, 32, 3)
    assert colour_entropy(image) == pytest.approx(9)  # log2(8 ** 3) bits


@given(colours=st.integers(1, 8), seed=st.integers(0, 1000))
@settings(max_examples=50)
def test_entropy_counts_colours_and_not_where_they_are(colours: int, seed: int) -> None:
    pixels = np.repeat(np.arange(colours, dtype=np.uint8) * 32, 64)
    np.random.default_rng(seed).shuffle(pixels)
    image = np.repeat(pixels.reshape(8, -1, 1), 3, axis=2)
    assert colour_entropy(image) == pytest.approx(np.log2(colours), abs=1e-5)
    assert colour_entropy(image[::-1, ::-1]) == colour_entropy(image)


def test_blur_never_sharpens(draw) -> None:
    grey = cv2.cvtColor(draw(3, 200), cv2.COLOR_RGB2GRAY)
    values = [sharpness(grey)] + [sharpness(cv2.GaussianBlur(grey, (0, 0), sigma)) for sigma in (0.5, 1, 2)]
    assert values == sorted(values, reverse=True)
    assert sharpness(np.full((50, 70), 99, np.uint8)) == 0.0


def test_sharpness_is_of_the_picture_and_not_of_its_size(draw) -> None:
    grey = cv2.GaussianBlur(cv2.cvtColor(draw(1, 1024), cv2.COLOR_RGB2GRAY), (0, 0), 6)
    smaller = cv2.resize(grey, (512, 512), interpolation=cv2.INTER_AREA)
    assert sharpness(smaller) == pytest.approx(sharpness(grey), rel=0.05)


def test_exposure_counts_clipped_pixels() -> None:
    grey = np.concatenate([np.full(30, 3), np.full(50, 128), np.full(20, 250)]).astype(np.uint8).reshape(10, 10)
    found = exposure(grey)
    assert found.dark == pytest.approx(0.3)
    assert found.bright == pytest.approx(0.2)
    assert found.mean == pytest.approx(grey.mean())
    edges = exposure(np.array([[15, 16, 239, 240]], np.uint8))
    assert (edges.dark, edges.bright) == (0.25, 0.25)
