"""What is held out is looked at once, each process taking its part of every batch."""

import pytest
import torch

from pixio_robot.training.distributed.processes import Processes
from pixio_robot.training.images import data as image_data
from pixio_robot.training.images.data import open_image_data


def shown(shards, batch_size):
    """The images of the first two batches of validation."""
    data = open_image_data([shards], [], batch_size=batch_size, image_size=16, seed=0, workers=1)
    data.batches.close()
    with data.validation as batches:
        return [next(batches).images for _ in range(2)]


@pytest.mark.parametrize("batch_size", [4, 64])
def test_processes_together_validate_on_the_images_of_one(batch_size, shards, monkeypatch):
    alone = shown(shards, batch_size)
    parts = []
    for rank in range(2):
        monkeypatch.setattr(image_data, "current_processes", lambda rank=rank: Processes(rank, 2))
        parts.append(shown(shards, batch_size))
    for whole, *two in zip(alone, *parts, strict=True):
        assert len(two[0]) == len(two[1])
        assert torch.equal(torch.cat(two), whole)


def test_uneven_validation_batches_are_not_split(shards, monkeypatch):
    alone = shown(shards, 65)
    monkeypatch.setattr(image_data, "current_processes", lambda: Processes(1, 5))  # of 12 images
    assert all(torch.equal(*both) for both in zip(alone, shown(shards, 65), strict=True))
