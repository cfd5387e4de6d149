"""Duplicates are found exactly: no more, no fewer, and the same one stays whatever the order of the search."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixio_robot.data.curation import duplicates
from pixio_robot.data.curation.duplicates import NO_FRAME, near_duplicates, still_frames


def test_a_slow_drift_is_thinned_out_and_not_dropped() -> None:
    hashes = np.array([0b0, 0b1, 0b11, 0b111, 0b1111, 0b1111], np.uint64)
    found = still_frames(hashes, np.zeros(6, int), np.ones(6, bool), limit=1)
    assert found.repeats.tolist() == [False, True, False, True, False, True]
    assert found.compared_with.tolist() == [NO_FRAME, 0, 0, 2, 2, 4]
    assert found.distance.tolist() == [-1, 1, 2, 1, 2, 0]


def test_frames_of_other_videos_and_dropped_ones_are_no_reference() -> None:
    hashes, videos = np.zeros(5, np.uint64), np.array([0, 0, 1, 1, 2])
    usable = np.array([False, True, True, True, True])
    assert still_frames(hashes, videos, usable, 0).repeats.tolist() == [False, False, False, True, False]
    assert not still_frames(hashes, videos, usable, None).repeats.any()


@pytest.mark.parametrize(("block", "held"), [(3, 3), (3, 12), (7, 14), (7, 70), (4096, 4096)])
def test_planted_duplicates_are_found_exactly(block: int, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "BLOCK", block)
    monkeypatch.setattr(duplicates, "_rows_held", lambda device, width: held)
    random = np.random.default_rng(0)
    vectors = random.normal(size=(40, 64))
    videos = np.arange(40) // 10
    copies = {15: 3, 25: 3, 38: 17, 39: 6}
    for copy, original in copies.items():
        vectors[copy] = vectors[original] + random.normal(size=64) * 0.01
    vectors[4] = vectors[3]  # of the same video: for the hash to say
    vectors[20] = vectors[12]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    usable = np.ones(40, bool)
    usable[20] = False
    found = near_duplicates(vectors.astype(np.float16), videos, usable, 0.99)
    expected = np.full(40, NO_FRAME)
    for copy, original in copies.items():
        expected[copy] = original
    assert found.original.tolist() == expected.tolist()
    exact = vectors @ vectors.T
    exact[videos[:, None] == videos[None]] = -2
    exact[:, ~usable] = -2
    np.testing.assert_allclose(found.similarity[usable], exact.max(axis=1)[usable], atol=2e-3)
    assert np.isnan(found.similarity[20])
    assert found.neighbour[15] in (3, 4, 25)


@pytest.mark.parametrize(("block", "held"), [(7, 7), (7, 35), (4096, 4096)])
def test_what_is_dropped_repeats_a_frame_that_is_kept(block: int, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Videos that pan through the same room: chains of similar views lead from each frame to every other."""
    monkeypatch.setattr(duplicates, "BLOCK", block)
    monkeypatch.setattr(duplicates, "_rows_held", lambda device, width: held)
    random = np.random.default_rng(0)
    frequencies, phases = random.normal(size=64), random.uniform(0, 2 * np.pi, 64)
    views = np.concatenate([start + 0.05 * np.arange(25) for start in random.uniform(0, 4, 10)])
    vectors = np.cos(np.outer(views, frequencies) + phases).astype(np.float16)
    videos = np.repeat(np.arange(10), 25)
    found = near_duplicates(vectors, videos, np.ones(250, bool), 0.99)
    unit = vectors.astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    kept: list[int] = []
    for frame in range(250):
        alike = [one for one in kept if videos[one] != videos[frame] and unit[one] @ unit[frame] >= 0.99]
        assert found.original[frame] == (alike[0] if alike else NO_FRAME)
        kept += [] if alike else [frame]
    assert 50 < len(kept) < 150


def test_one_video_alone_has_no_duplicates() -> None:
    found = near_duplicates(np.ones((5, 1), np.float16), np.zeros(5, int), np.ones(5, bool), 0.5)
    assert (found.original == NO_FRAME).all()
    assert np.isnan(found.similarity).all()
    nothing = near_duplicates(np.ones((5, 1), np.float16), np.arange(5), np.zeros(5, bool), 0.5)
    assert (nothing.original == NO_FRAME).all()


def test_cosines_are_computed_in_full_float32_whatever_else_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """As pick_device leaves it for a GPU: TF32."""
    before, during = torch.get_float32_matmul_precision(), set()
    search = duplicates._drop_repeats

    def spy(*arguments: np.ndarray) -> None:
        during.add(torch.get_float32_matmul_precision())
        search(*arguments)

    monkeypatch.setattr(duplicates, "_drop_repeats", spy)
    torch.set_float32_matmul_precision("high")
    try:
        for _ in range(2):
            near_duplicates(np.eye(6, dtype=np.float16), np.arange(6), np.ones(6, bool), 0.9)
            assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
    assert during == {"highest"}
