"""What is held out of demonstrations is looked at once, each process taking its part of every batch; and memory."""

import contextlib
import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from demo_data import SPEC, make_episode, make_store

from pixio_robot.cli import learning_data
from pixio_robot.cli.learned import mark
from pixio_robot.cli.learning_data import open_demonstrations
from pixio_robot.data import image_sources
from pixio_robot.data.demo_arrays import DamagedArray
from pixio_robot.data.demo_edit import filtered, write
from pixio_robot.data.images import CorruptImage
from pixio_robot.training.distributed import Processes

BYTES_A_STEP = sum(camera.height * camera.width * 3 for camera in SPEC.cameras.values())


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


@pytest.mark.parametrize(("stores", "kept"), [(1, True), (2, False)])
def test_stores_together_keep_no_more_in_ram_than_one(stores, kept, tmp_path, monkeypatch):
    paths = [str(tmp_path / f"store{number}") for number in range(stores)]
    lengths = [make_store(path, 2).lengths.sum() for path in paths]
    for module in (learning_data, image_sources):
        monkeypatch.setattr(module, "DEFAULT_RAM_BYTES", int(lengths[0]) * BYTES_A_STEP)
    store = open_demonstrations(paths, weights=None, goals=None, validation_share=0.0, seed=0).stores[0]
    images = image_sources.open_image_source(paths)
    assert store.images(0, "front").shape[1:] == images.image(0).shape
    shutil.rmtree(store.episode_path(0) / "images" / "front")
    with contextlib.nullcontext() if kept else pytest.raises(DamagedArray):
        store.images(0, "front")
    with contextlib.nullcontext() if kept else pytest.raises(CorruptImage):
        images.image(0)


def test_tasks_that_share_a_store_are_not_passed_over_in_silence(tmp_path, capsys):
    store = make_store(tmp_path / "one", 2)
    settings = {"weights": None, "goals": None, "validation_share": 0.0, "seed": 0}
    open_demonstrations([str(store.path)], **settings)
    assert not capsys.readouterr().out
    for task in ("lift the cube", "open the drawer"):
        store.append(dataclasses.replace(make_episode(7), info={"task": task}))
    assert open_demonstrations([str(store.path)], **settings).goals == {}
    assert "of 3 tasks" in (told := capsys.readouterr().out)
    # What it says is understood, and leads to a policy that is told.
    paths = []
    for number, task in enumerate(("lift the cube", "open the drawer")):
        where = f'task == "{task}"'
        assert where in told.replace("Test", task)
        paths.append(str(tmp_path / f"task{number}"))
        write(Path(paths[-1]), {"": filtered(store, where)}, progress=False)
    assert set(open_demonstrations(paths, **settings).goals) == {"lift the cube", "open the drawer"}


def test_every_episode_is_read_once_to_be_known_again(tmp_path, monkeypatch):
    paths = [str(tmp_path / name) for name in "ab"]
    stores = [make_store(path, 4) for path in paths]
    marks, read = [mark(store, number) for store in stores for number in range(4)], []
    monkeypatch.setattr(learning_data, "mark", lambda *which: read.append(which) or mark(*which))
    settings = {"weights": None, "goals": None, "validation_share": 0.5, "seed": 0}
    data = open_demonstrations(paths, **settings, learned=marks[:3])
    assert set(marks[:3]) <= data.marks
    trained_on = [mark(store, n) for store, numbers in zip(data.stores, data.training, strict=True) for n in numbers]
    assert data.marks == set(trained_on)
    assert len(read) == 8
