"""A selection takes frames as often as promised, and the same ones again for the same seed."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from pixio_robot.data.curation import selection as module
from pixio_robot.data.curation.selection import ACCEPTANCE, Selection, acceptance_of, write_selection
from pixio_robot.data.curation.thresholds import Reason
from pixio_robot.data.images.shards import FrameShards
from pixio_robot.errors import UserError


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, make_shards, draw) -> FrameShards:
    root = tmp_path_factory.mktemp("selection")
    return FrameShards.open(make_shards(root, {"a": [draw(seed) for seed in range(6)]}))


def test_acceptance_is_the_loss_within_zero_and_one() -> None:
    reasons = np.array([0, 0, 0, Reason.DARK, 0], np.uint8)
    losses = np.array([0.25, 1.7, np.nan, 0.9, 0.0], np.float32)
    assert acceptance_of(reasons, losses).tolist() == [0.25, 1.0, 1.0, 0.0, 0.0]
    assert acceptance_of(reasons, None).tolist() == [1.0, 1.0, 1.0, 0.0, 1.0]


def test_frequencies_are_the_probabilities(tmp_path: Path, shards: FrameShards) -> None:
    losses = np.array([0.02, 0.3, 0.5, 0.9, 1.4, 0.6], np.float32)
    reasons = np.zeros(6, np.uint8)
    reasons[5] = Reason.STILL
    write_selection(tmp_path, shards, {}, reasons, losses)
    selection = Selection.open(tmp_path)
    epochs = 3000
    counts = np.zeros(6)
    for epoch in range(epochs):
        counts[selection.epoch(7, epoch).numbers()] += 1
    expected = np.array([0.02, 0.3, 0.5, 0.9, 1.0, 0.0])
    spread = np.sqrt(expected * (1 - expected) / epochs)
    assert (np.abs(counts / epochs - expected) <= 4.5 * spread).all()
    assert selection.info["expected_epoch_frames"] == pytest.approx(expected.sum(), abs=1e-3)


def test_an_epoch_is_a_function_of_seed_and_number(tmp_path: Path, shards: FrameShards) -> None:
    write_selection(tmp_path, shards, {}, np.zeros(6, np.uint8), np.full(6, 0.5, np.float32))
    first, again = Selection.open(tmp_path), Selection.open(tmp_path)
    epochs = [first.epoch(1, epoch).numbers() for epoch in range(20)]
    backwards = [again.epoch(1, epoch).numbers() for epoch in reversed(range(20))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(epochs, backwards, strict=True))
    assert len({tuple(epoch) for epoch in epochs}) > 5
    assert any(not np.array_equal(first.epoch(2, epoch).numbers(), epochs[epoch]) for epoch in range(20))
    assert all(epoch.dtype == np.int64 and (np.diff(epoch) > 0).all() for epoch in epochs)


def test_blocks_of_frames_are_drawn_independently(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 4000)
    accepted = Selection({"frames": 8000, "kept": 8000}, np.full(8000, 0.5, np.float32)).epoch(0, 0)
    taken = np.isin(np.arange(8000), accepted.numbers())
    assert abs(np.corrcoef(taken[:4000], taken[4000:])[0, 1]) < 0.07


def test_many_frames_need_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n = 3_000_000
    probability = np.full(n, 0.5, np.float32)
    np.save(tmp_path / "big.npy", probability)
    mapped = np.load(tmp_path / "big.npy", mmap_mode="r")
    monkeypatch.setattr(module, "BLOCK", 100_000)
    selection = Selection({"frames": n, "kept": n}, mapped)
    tracemalloc.start()
    accepted = selection.epoch(0, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert abs(len(accepted) - n / 2) < 5 * np.sqrt(n) / 2
    assert peak < n / 2 + 4_000_000  # a few bits a frame; the draws of one block


def test_what_is_no_selection_is_refused(tmp_path: Path, shards: FrameShards) -> None:
    with pytest.raises(UserError, match="is not a selection"):
        Selection.open(tmp_path)
    write_selection(tmp_path, shards, {}, np.full(6, Reason.DARK, np.uint8), None)
    with pytest.raises(UserError, match="keeps no frame"):
        Selection.open(tmp_path)
    write_selection(tmp_path, shards, {}, np.zeros(6, np.uint8), None)
    Selection.open(tmp_path)
    np.save(tmp_path / ACCEPTANCE, np.ones(5, np.float32))
    with pytest.raises(UserError, match="does not match"):
        Selection.open(tmp_path)
    (tmp_path / ACCEPTANCE).write_bytes(b"no")
    with pytest.raises(UserError, match="cannot be read"):
        Selection.open(tmp_path)
