"""Selections find the shards they were made of, among others and among demonstrations without one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pixio_robot.data.curation.multi_source_selection import open_selections
from pixio_robot.data.curation.selection import Selection, write_selection
from pixio_robot.data.curation.thresholds import Reason
from pixio_robot.data.images.batches import PixelBatches
from pixio_robot.data.images.shards import FrameShards
from pixio_robot.data.images.sources import open_image_source
from pixio_robot.errors import UserError


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, make_shards, draw) -> list[Path]:
    """Three ingests of 5, 6 and 7 frames; beside the first and the last a selection that drops the first frame."""
    found = []
    for number, count in enumerate((5, 6, 7)):
        root = tmp_path_factory.mktemp("across")
        found.append(make_shards(root, {"a": [draw(100 * number + seed) for seed in range(count)]}))
        if number != 1:
            reasons = np.zeros(count, np.uint8)
            reasons[0] = Reason.BLURRED
            (root / "selection").mkdir()
            losses = np.full(count, 0.5, np.float32) if number == 2 else None
            write_selection(root / "selection", FrameShards.open(found[-1]), {}, reasons, losses)
    return found


def selections(folders: list[Path]) -> list[str]:
    return [str(folders[number].parent / "selection") for number in (0, 2)]


def test_each_source_is_thinned_by_its_own(folders: list[Path]) -> None:
    source = open_image_source([str(folder) for folder in folders])
    across = open_selections(selections(folders), source)
    assert across is not None
    last = Selection.open(folders[2].parent / "selection")
    shown = across.epoch(3, 1)
    expected = [*range(1, 5), *range(5, 11), *(last.epoch(3 + 2, 1).numbers() + 11)]
    assert shown[np.arange(len(shown))].tolist() == expected
    with PixelBatches(source, 4, 8, seed=3, selection=across) as batches:
        ids = [identity for batch, _ in zip(batches, range(20), strict=False) for identity in batch.ids]
    assert not {source.id(0), source.id(11)} & set(ids)
    assert {source.id(i) for i in range(1, 11)} <= set(ids)


def test_none_and_one_alone(folders: list[Path]) -> None:
    source = open_image_source(str(folders[0]))
    assert open_selections([], source) is None
    across = open_selections(selections(folders)[:1], source)
    assert across is not None
    assert across.epoch(0, 0)[np.arange(4)].tolist() == [1, 2, 3, 4]


def test_what_does_not_belong_is_refused(folders: list[Path]) -> None:
    first, last = selections(folders)
    source = open_image_source([str(folders[0]), str(folders[1])])
    with pytest.raises(UserError, match="was not made from any of the shards"):
        open_selections([last], source)
    with pytest.raises(UserError, match="Two selections were made from the same shards"):
        open_selections([first, first], source)
