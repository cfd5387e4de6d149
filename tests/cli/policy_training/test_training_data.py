"""What is held out of demonstrations is looked at once, each process taking its part of every batch; and memory."""

import contextlib
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from demo_data import SPEC, make_episode, make_store

from pixio_robot.cli.policy_training import training_data
from pixio_robot.cli.policy_training.data_settings import DataSettings
from pixio_robot.cli.policy_training.data_warnings import data_warnings
from pixio_robot.cli.policy_training.training_data import Demonstrations, open_demonstrations
from pixio_robot.data.demos.arrays import CorruptArray
from pixio_robot.data.demos.episode_hash import hash_episode
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.images import sources
from pixio_robot.data.images.codec import CorruptImage
from pixio_robot.errors import UserError
from pixio_robot.training.distributed.processes import Processes
from policies.config import PolicyConfig

BYTES_A_STEP = sum(camera.height * camera.width * 3 for camera in SPEC.cameras.values())


def opened(*paths, share=0.5, seed=0, learned=(), **settings) -> Demonstrations:
    return open_demonstrations(DataSettings(data=[str(path) for path in paths], **settings), share, seed, learned)


class Chunks:
    observation_steps, chunk, past_actions, max_padding, cameras = 1, 2, 0, None, ()


@pytest.mark.parametrize("stores", [1, 2])
def test_processes_together_look_at_what_one_does(stores, tmp_path, monkeypatch):
    paths = [str(tmp_path / f"store{number}") for number in range(stores)]
    for path in paths:
        make_store(path, 4)
    data = opened(*paths)

    def held_out():
        training, validation = data.streams(Chunks(), None, batch_size=4, seed=0, random_views=False)
        training.close()
        with validation:
            return next(validation).actions

    whole, parts = held_out(), []
    for rank in range(2):
        monkeypatch.setattr(training_data, "current_processes", lambda rank=rank: Processes(rank, 2))
        parts.append(held_out())
    assert len(parts[0]) == len(parts[1]) == 2
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize(("stores", "kept"), [(1, True), (2, False)])
def test_stores_together_keep_no_more_in_ram_than_one(stores, kept, tmp_path, monkeypatch):
    paths = [str(tmp_path / f"store{number}") for number in range(stores)]
    lengths = [make_store(path, 2).lengths.sum() for path in paths]
    for module in (training_data, sources):
        monkeypatch.setattr(module, "DEFAULT_RAM_BYTES", int(lengths[0]) * BYTES_A_STEP)
    store = opened(*paths, share=0.0).sources[0].store
    images = sources.open_image_source(paths)
    assert store.images(0, "front").shape[1:] == images.image(0).shape
    shutil.rmtree(store.episode_path(0) / "images" / "front")
    with contextlib.nullcontext() if kept else pytest.raises(CorruptArray):
        store.images(0, "front")
    with contextlib.nullcontext() if kept else pytest.raises(CorruptImage):
        images.image(0)


TASKS = ("lift the cube", "open the drawer", "lift the cube")


def several_tasks(path: Path) -> DemoStore:
    """Every action of an episode is its number."""
    store = DemoStore.create(path, dataclasses.replace(SPEC, task="3 tasks of a set"))
    for number, task in enumerate(TASKS):
        episode = make_episode(number, length=5)
        store.append(dataclasses.replace(episode, info={"task": task}, actions=np.full((5, 2), number, np.float32)))
    return store


def parts(data) -> tuple[list[list[int]], list[list[int]]]:
    """(Training, held-out) episodes of every source."""
    return [list(source.training) for source in data.sources], [list(source.held_out) for source in data.sources]


def goals_by_action(data) -> dict[float, list[float]]:
    """What was wanted in the windows of one batch, by the first action of each."""
    batches, _ = data.streams(Chunks(), None, batch_size=64, seed=0, random_views=False)
    with batches:
        batch = next(batches)
    return dict(zip(batch.actions[:, 0, 0].tolist(), batch.observation.goal.tolist(), strict=True))


def test_a_store_of_several_tasks_says_which_each_window_is_of(tmp_path):
    path = str(several_tasks(tmp_path / "demos").path)
    data = opened(path, share=0.0)
    assert data.goals == {"lift the cube": [1.0, 0.0], "open the drawer": [0.0, 1.0]}
    assert data.spec.task == "lift the cube + open the drawer"
    assert goals_by_action(data) == {0.0: [1.0, 0.0], 1.0: [0.0, 1.0], 2.0: [1.0, 0.0]}
    (tmp_path / "goals.json").write_text(json.dumps({"open the drawer": [1, 2, 3], "lift the cube": [4, 5, 6]}))
    data = opened(path, share=0.0, goals=str(tmp_path / "goals.json"))
    assert goals_by_action(data) == {0.0: [4, 5, 6], 1.0: [1, 2, 3], 2.0: [4, 5, 6]}
    (tmp_path / "goals.json").write_text(json.dumps({"lift the cub": [1, 2]}))
    with pytest.raises(
        UserError, match=r"no numbers for the tasks 'lift the cube', 'open the drawer' .*; it has 'lift the cub'\."
    ):
        opened(path, share=0.0, goals=str(tmp_path / "goals.json"))
    data = opened(path, share=0.0, tell_task=False)
    assert data.goals == {}
    assert data.spec.task == "3 tasks of a set"


def test_stores_of_several_tasks_and_of_one_learn_together(tmp_path):
    paths = [str(several_tasks(tmp_path / "demos").path), str(make_store(tmp_path / "more", 2).path)]
    data = opened(*paths, share=0.0, data_weights=[1, 1])
    assert list(data.goals) == ["lift the cube", "open the drawer", "Test"]
    found = goals_by_action(data)
    assert found.pop(0.0) == found.pop(2.0) == [1, 0, 0]
    assert found.pop(1.0) == [0, 1, 0]
    assert set(map(tuple, found.values())) == {(0, 0, 1)}


def test_every_episode_is_read_once_to_be_known_again(tmp_path, monkeypatch):
    paths = [str(tmp_path / name) for name in "ab"]
    stores = [make_store(path, 4) for path in paths]
    marks, read = [hash_episode(store, number) for store in stores for number in range(4)], []
    monkeypatch.setattr(training_data, "hash_episode", lambda *which: read.append(which) or hash_episode(*which))
    data = opened(*paths, learned=marks[:3])
    assert set(marks[:3]) <= data.learned
    assert data.learned == {hash_episode(source.store, number) for source in data.sources for number in source.training}
    assert len(read) == 8


def masked(path: Path, valid: tuple[int, ...], count: int = 5, first_seed: int = 0) -> DemoStore:
    """As imported from a robomimic file with a split of its own."""
    store = DemoStore.create(path, SPEC)
    for number in range(count):
        info = {"mask.valid" if number in valid else "mask.train": True}
        store.append(dataclasses.replace(make_episode(first_seed + number), info=info))
    return store


def test_episodes_that_are_named_are_held_out_in_place_of_a_share(tmp_path):
    path = str(masked(tmp_path / "a", valid=(1, 3)).path)
    data = opened(path, validation_where="info.mask.valid == true")
    assert parts(data) == ([[0, 2, 4]], [[1, 3]])
    state = np.concatenate([data.sources[0].store.state(number) for number in (0, 2, 4)])
    np.testing.assert_allclose(data.statistics.state.mean, state.mean(0), rtol=1e-5)
    data = opened(path, train_where="episode in 0..3", validation_where="info.mask.valid == true")
    assert parts(data) == ([[0, 2]], [[1, 3]])
    data = opened(path, train_where="info.mask.train == true")
    ((training,), (held_out,)) = parts(data)
    assert sorted(training + held_out) == [0, 2, 4]
    assert held_out


@pytest.mark.parametrize("weights", [None, [1.0, 3.0]])
def test_another_store_is_held_out_whole_and_what_is_in_both_not_trained_on(weights, tmp_path):
    paths = [str(masked(tmp_path / "a", (1,)).path), str(masked(tmp_path / "b", (), first_seed=50).path)]
    other = DemoStore.create(tmp_path / "c", SPEC)
    other.append(make_episode(99))
    other.append(DemoStore.open(paths[0]).episode(2))
    data = opened(*paths, data_weights=weights, validation_data=[str(other.path)])
    assert parts(data) == ([[0, 1, 3, 4], [0, 1, 2, 3, 4], []], [[], [], [0, 1]])
    assert data.seeds == [*range(5), *range(50, 55), 99], "evaluations are on others than those of all stores"
    training, validation = data.streams(Chunks(), None, batch_size=4, seed=0, random_views=False)
    with training, validation:
        assert len(next(training).actions) == len(next(validation).actions) == 4
        assert validation.windows == other.lengths.sum()


def test_weights_stay_with_their_stores_when_one_has_nothing_to_train_on(tmp_path):
    stores = [
        masked(tmp_path / name, valid, first_seed=50 * i)
        for i, (name, valid) in enumerate((("a", ()), ("b", range(5)), ("c", ())))
    ]
    chosen = {"train_where": "info.mask.train == true", "data_weights": [1.0, 5.0, 1e-9]}
    data = opened(*(store.path for store in stores), share=0.0, **chosen)
    with data.streams(Chunks(), None, batch_size=16, seed=0, random_views=False)[0] as training:
        drawn = next(training).actions[:, 0].numpy()
    first = np.concatenate([stores[0].actions(number) for number in range(5)])
    assert (drawn[:, None] == first).all(-1).any(1).all()


def test_a_store_of_weight_0_is_as_if_it_were_not_listed(tmp_path):
    used = str(make_store(tmp_path / "used", 4).path)
    unused = str(several_tasks(tmp_path / "unused").path)
    without, beside = opened(used), opened(unused, used, data_weights=[0, 2.0])
    assert (beside.spec, beside.goals, beside.seeds) == (without.spec, without.goals, without.seeds)
    assert parts(beside) == parts(without)
    np.testing.assert_array_equal(beside.statistics.state.mean, without.statistics.state.mean)
    for weights in ([0, 0], [1], [1, -1], [1, float("nan")]):
        with pytest.raises(UserError, match=r"data_weights=.* non-negative number for each of the 2 stores in data"):
            opened(unused, used, data_weights=weights)


def test_a_single_store_trains_on_the_same_batches_whatever_is_held_out_elsewhere(tmp_path):
    path = str(masked(tmp_path / "a", (1,)).path)
    other = masked(tmp_path / "other", (), count=2, first_seed=50)
    batches = []
    for held_out in ([], [str(other.path)]):
        data = opened(path, share=0.0, validation_data=held_out)
        with data.streams(Chunks(), None, batch_size=4, seed=0, random_views=False)[0] as training:
            batches.append(next(training).actions)
    assert torch.equal(*batches)


@pytest.mark.parametrize("seed", range(4))
def test_the_same_recording_is_not_both_trained_on_and_held_out(seed, tmp_path):
    """A store, and another with the best of its episodes, one of them twice, to weight them more."""
    path, best = tmp_path / "all", tmp_path / "best"
    store, chosen = make_store(path, 10), DemoStore.create(best, SPEC)
    for number in (1, 3, 4, 6, 8, 8):
        chosen.append(store.episode(number))
    data = opened(path, best, share=0.3, seed=seed, data_weights=[1.0, 2.0])
    marks = {
        part: [source.hashes[number] for source in data.sources for number in getattr(source, part)]
        for part in ("training", "held_out")
    }
    assert len(marks["held_out"]) >= 3
    assert not set(marks["training"]) & set(marks["held_out"])
    assert set(marks["training"]) | set(marks["held_out"]) == set(data.sources[0].hashes)
    twins = sum(source.duplicates for source in data.sources)
    assert len(marks["training"]) + len(marks["held_out"]) + twins == 16
    said = [
        note for note in data_warnings(data.sources, PolicyConfig()) if "because the same ones are held out" in note
    ]
    assert len(said) == sum(source.duplicates > 0 for source in data.sources)


def test_a_choice_of_nothing_or_of_what_was_learned_is_refused(tmp_path):
    path = str(masked(tmp_path / "a", valid=(1, 3)).path)
    known = hash_episode(DemoStore.open(path), 3)
    for settings, learned, says in (
        ({"validation_where": "length > 1000"}, (), "validation_where: where=.* none of the 5 episodes of"),
        (
            {"validation_where": "info.mask.vaild == true"},
            (),
            "validation_where: .* Did you mean 'info.mask.valid'",
        ),
        ({"train_where": "length >"}, (), "train_where: where='length >': expected a value"),
        ({"validation_where": "episode >= 0"}, (), "none is left to train on.$"),
        ({"validation_data": [path]}, (), "none is left to train on. 5 are duplicates of held-out episodes"),
        ({"validation_where": "info.mask.valid == true"}, (known,), "was trained on 1 of the 2 episodes"),
    ):
        with pytest.raises(UserError, match=says):
            opened(path, learned=learned, **settings)
    tasks = str(several_tasks(tmp_path / "tasks").path)
    with pytest.raises(UserError, match=r"held-out episodes contain open the drawer.*tell_task=false"):
        opened(tasks, validation_where="task == 'open the drawer'")
