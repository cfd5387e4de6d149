"""Batches hold what the store holds, each window once an epoch, and a restored loader goes on exactly."""

import copy
import dataclasses
import multiprocessing
import shutil
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from demo_data import make_episode, make_store, take_and_send

from pixio_robot.data.demos.overridden_steps import OVERRIDDEN_STEPS
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.demos.verify import verify_store
from pixio_robot.data.loading import DemoBatches, DemoWindows
from pixio_robot.errors import UserError
from pixio_robot.types import Batch


def windows(store: DemoStore, **settings) -> DemoWindows:
    defaults = {"observation_steps": 2, "horizon": 3, "cameras": ["front", "hand"]}
    return DemoWindows(store, **(defaults | settings))


def batches(store: DemoStore, *, batch_size: int = 4, seed: int = 0, world_size: int = 1, **settings) -> DemoBatches:
    return DemoBatches(windows(store, **settings), batch_size=batch_size, seed=seed, world_size=world_size)


def equal(one: Batch, other: Batch) -> bool:
    return (
        torch.equal(one.actions, other.actions)
        and torch.equal(one.observation.state, other.observation.state)
        and torch.equal(one.ignored, other.ignored)
        and all(torch.equal(one.observation.images[n], other.observation.images[n]) for n in one.observation.images)
    )


def test_a_window_holds_what_the_episode_holds(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", episodes=1)
    episode = make_episode(0)
    batch = windows(store).gather(np.array([0, 2, len(episode) - 1]))
    assert batch.observation.images["front"].shape == (3, 2, 12, 10, 3)
    assert np.array_equal(batch.observation.images["hand"][1].numpy(), episode.images["hand"][1:3])
    assert np.array_equal(batch.observation.state[0].numpy(), episode.state[[0, 0]])
    assert np.array_equal(batch.actions[2].numpy(), episode.actions[[-1, -1, -1]])
    assert batch.ignored[2].tolist() == [False, True, True]


def test_reactions_to_an_overridden_step_are_ignored(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", episodes=1)
    store.append(dataclasses.replace(make_episode(1, length=5), info={OVERRIDDEN_STEPS: [1]}))
    batch = windows(store).gather(np.arange(store.lengths[0], store.lengths.sum()))
    assert batch.ignored[:3].tolist() == [[False, False, True], [False, True, True], [False, False, False]]


@pytest.mark.parametrize("steps", [[5], [-1], [1.0], [True], "12", {"1": 2}])
def test_overridden_steps_that_are_none_are_named(tmp_path: Path, steps: Any) -> None:
    store = make_store(tmp_path / "s", episodes=1)
    store.append(dataclasses.replace(make_episode(1, length=5), info={OVERRIDDEN_STEPS: steps}))
    message = "000001: info.overridden_steps must list numbers of its steps, 0..4: "
    with pytest.raises(UserError, match=message):
        windows(store)
    assert [message in problem for problem in verify_store(store)] == [True]


def test_fewer_windows_than_processes_are_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", episodes=1)
    with pytest.raises(UserError, match="too few for 64 processes"):
        batches(store, batch_size=64, world_size=64)


def test_only_where_a_gpu_is_used_the_thread_that_gathers_pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, by = make_store(tmp_path / "s"), []

    def pin_memory(tensor: torch.Tensor) -> torch.Tensor:
        by.append(threading.current_thread())
        return tensor.clone()

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    with batches(store) as loader:
        expected = next(loader).to(torch.device("cpu"))
    assert not by
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with batches(store) as loader:
        assert equal(next(loader), expected)
    tensors = 2 + 3  # two cameras; state, actions, padding
    assert len(by) >= tensors
    assert threading.current_thread() not in by


def test_an_epoch_is_a_permutation_and_the_next_another(tmp_path: Path) -> None:
    loader = batches(make_store(tmp_path / "s"), batch_size=1, observation_steps=1)
    epochs = [[next(loader).actions.numpy().tobytes() for _ in range(loader.windows)] for _ in range(2)]
    loader.close()
    assert len(set(epochs[0])) == loader.windows
    assert set(epochs[0]) == set(epochs[1])
    assert epochs[0] != epochs[1]


def test_another_seed_is_another_order(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s")
    with batches(store) as one, batches(store) as again, batches(store, seed=1) as other:
        first = next(one)
        assert equal(next(again), first)
        assert not equal(next(other), first)


@pytest.mark.parametrize("consumed", [0, 1, 5, 11])
def test_a_restored_loader_goes_on_exactly(tmp_path: Path, consumed: int) -> None:
    store = make_store(tmp_path / "s")
    first = batches(store)
    for _ in range(consumed):
        next(first)
    state = first.state_dict()
    expected = [next(first) for _ in range(4)]
    second = batches(store)
    next(second)  # what it has prepared since is not what comes next
    second.load_state_dict(state)
    assert all(equal(next(second), batch) for batch in expected)
    first.close()
    second.close()


def test_a_state_of_other_data_is_refused(tmp_path: Path) -> None:
    state = batches(make_store(tmp_path / "a", episodes=2)).state_dict()
    with pytest.raises(UserError, match="windows"):
        batches(make_store(tmp_path / "b", episodes=3)).load_state_dict(state)


def test_closing_ends_the_thread(tmp_path: Path) -> None:
    loader = batches(make_store(tmp_path / "s"))  # writing starts zarr's threads, which stay
    before = threading.active_count()
    next(loader)
    loader.close()
    loader.close()
    assert threading.active_count() == before
    # It can be taken up again.
    with loader:
        next(loader)
    assert threading.active_count() == before


def test_a_loader_that_nobody_holds_any_longer_ends_its_thread(tmp_path: Path) -> None:
    loader = batches(make_store(tmp_path / "s"))  # writing starts zarr's threads, which stay
    before = threading.active_count()
    next(loader)
    there = weakref.ref(loader)
    del loader
    deadline = time.monotonic() + 60
    while (there() is not None or threading.active_count() > before) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert there() is None
    assert threading.active_count() == before


@pytest.mark.parametrize("ram_bytes", [0, 1 << 30])
def test_an_error_of_the_thread_reaches_the_consumer(tmp_path: Path, ram_bytes: int) -> None:
    make_store(tmp_path / "s", episodes=1)
    before = threading.active_count()
    loader = batches(DemoStore.open(tmp_path / "s", ram_bytes=ram_bytes), batch_size=1)
    shutil.rmtree(tmp_path / "s" / "episodes" / "000000" / "images" / "hand")
    for _ in range(2):
        with pytest.raises(UserError, match=r"images/hand is not a readable Zarr array"):
            next(loader)
    assert threading.active_count() == before


def test_beyond_the_ram_budget_the_same_batches_come(tmp_path: Path) -> None:
    make_store(tmp_path / "s")
    ram, disk = (batches(DemoStore.open(tmp_path / "s", ram_bytes=size)) for size in (1 << 30, 0))
    with ram, disk:
        for _ in range(2 * ram.batches_per_epoch):
            assert equal(next(ram), next(disk))


def test_batches_that_are_held_do_not_change(tmp_path: Path) -> None:
    with batches(make_store(tmp_path / "s")) as loader:
        held = [next(loader) for _ in range(6)]
        copies = copy.deepcopy(held)
        for _ in range(6):
            next(loader)
    assert all(equal(one, other) for one, other in zip(held, copies, strict=True))


def test_only_the_chosen_episodes_are_seen(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s")
    with batches(store, episodes=[3, 1], batch_size=1, horizon=1) as loader:
        found = {next(loader).actions.numpy().tobytes() for _ in range(loader.windows)}
    assert found == {row.tobytes() for seed in (1, 3) for row in make_episode(seed).actions}


def test_a_store_smaller_than_a_batch_still_trains(tmp_path: Path) -> None:
    with batches(make_store(tmp_path / "s", episodes=1), batch_size=1000) as loader:
        assert len(next(loader).actions) == loader.windows
        assert loader.batches_per_epoch == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"cameras": ["side"]}, "Unknown camera 'side'"),
        ({"episodes": [9]}, r"episodes 0\.\.3"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        batches(make_store(tmp_path / "s"), **settings)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_another_process_goes_on_where_this_one_is(tmp_path: Path, method: str) -> None:
    context = multiprocessing.get_context(method)
    with batches(make_store(tmp_path / "s")) as loader:
        next(loader)
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=take_and_send, args=(loader, there))
        process.start()
        assert here.poll(60)
        found = here.recv()
        process.join(10)
        assert process.exitcode == 0
        assert np.array_equal(found, next(loader).actions.numpy())
