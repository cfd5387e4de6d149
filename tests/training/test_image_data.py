"""The images of a run: sources by weight, thinned by their selections, shared by processes."""

import shutil
from collections import Counter

import numpy as np
import pytest

from pixio_robot.data.curation.selection import write_selection
from pixio_robot.data.images import mixture
from pixio_robot.data.images.shards import FrameShards
from pixio_robot.training.distributed.processes import Processes
from pixio_robot.training.images import data as image_data
from pixio_robot.training.images.data import open_image_data


def shown(paths, selection=(), weights=None, workers=1) -> list[str]:
    data = open_image_data(paths, selection, weights, batch_size=8, image_size=16, seed=0, workers=workers)
    data.validation.close()
    with data.batches as batches:
        return [identity for _, batch in zip(range(40), batches, strict=False) for identity in batch.ids]


@pytest.mark.slow
def test_sources_are_mixed_by_weight_and_respect_a_selection(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(mixture, "ROUND_LENGTH", 200)
    copy = str(tmp_path / "copy")
    shutil.copytree(shards, copy)
    others = FrameShards.open(shards)
    reasons = np.zeros(len(others), np.uint8)
    reasons[: len(others) - 4] = 1
    (tmp_path / "selection").mkdir()
    write_selection(tmp_path / "selection", others, {}, reasons, np.full(len(others), 0.5, np.float32))
    kept = {f"{path}:{others.id(row)}" for path in (shards, copy) for row in range(len(others) - 4, len(others))}

    plain = shown([shards, copy], [str(tmp_path / "selection")], [3, 1])
    sources = Counter(identity.split(":")[0] for identity in plain)
    assert 0.65 < sources[shards] / len(plain) < 0.85
    assert set(plain) == kept  # equal shards, so the selection is of both
    assert plain == shown([shards, copy], [str(tmp_path / "selection")], [3, 1], workers=3)

    even = Counter(identity.split(":")[0] for identity in shown([shards, copy]))
    assert 0.4 < even[shards] / len(plain) < 0.6

    parts = []
    for rank in range(2):
        monkeypatch.setattr(image_data, "current_processes", lambda rank=rank: Processes(rank, 2))
        parts.append(shown([shards, copy], [str(tmp_path / "selection")], [3, 1]))
    together = [part[4 * step : 4 * step + 4] for step in range(40) for part in parts]
    assert [identity for part in together for identity in part] == plain
