"""What is held out of demonstrations is looked at once, each process taking its part of every batch."""

import pytest
import torch
from demo_data import make_store

from pixio_robot.cli import learning_data
from pixio_robot.cli.learning_data import open_demonstrations
from pixio_robot.training.distributed import Processes


class Chunks:
    observation_steps, chunk, past_actions, max_padding, cameras = 1, 2, 0, None, ()


@pytest.mark.parametrize("stores", [1, 2])
def test_processes_together_look_at_what_one_does(stores, tmp_path, monkeypatch):
    paths = [str(tmp_path / f"store{number}") for number in range(stores)]
    for path in paths:
        make_store(path, 4)
    data = open_demonstrations(paths, weights=None, goals=None, validation_share=0.5, seed=0)

    def held_out():
        training, validation = data.streams(Chunks(), None, batch_size=4, seed=0, random_views=False)
        training.close()
        with validation:
            return next(validation).actions

    whole, parts = held_out(), []
    for rank in range(2):
        monkeypatch.setattr(learning_data, "current", lambda rank=rank: Processes(rank, 2))
        parts.append(held_out())
    assert len(parts[0]) == len(parts[1]) == 2
    assert torch.equal(torch.cat(parts), whole)
