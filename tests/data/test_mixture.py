"""Several stores in one batch, by weight; and what is wanted in each."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from demo_data import SPEC, make_episode, make_store
from safetensors.numpy import save_file

from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.goals import one_hot_goals, read_goals
from pixio_robot.data.loading import DemoBatches, DemoWindows
from pixio_robot.data.mixture import MixedBatches, common_spec
from pixio_robot.data.stats import compute_mixture_statistics, compute_statistics
from pixio_robot.errors import UserError
from pixio_robot.types import CameraSpec


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> list[DemoStore]:
    """The same robot in three tasks; every action of store number i is i."""
    found = []
    for number in range(3):
        path = tmp_path_factory.mktemp("stores") / str(number)
        store = DemoStore.create(path, dataclasses.replace(SPEC, task=f"Task{number}"))
        for seed in range(2 + number):
            episode = make_episode(seed, length=5)
            store.append(dataclasses.replace(episode, actions=np.full((5, 2), number, np.float32)))
        found.append(store)
    return found


def mixed(stores, goals=None, **settings) -> MixedBatches:
    """goals: of each store, the same in all of its episodes."""
    parts = [
        DemoWindows(
            store,
            observation_steps=2,
            horizon=3,
            cameras=["hand"],
            goals=None if goals is None else [goals[number]] * len(store),
        )
        for number, store in enumerate(stores)
    ]
    return MixedBatches(parts, **{"batch_size": 12, "seed": 7, **settings})


def counts(batches: MixedBatches, number: int = 40) -> np.ndarray:
    """Rows of each store in that many batches."""
    return sum(np.bincount(next(batches).actions[:, 0, 0].int().numpy(), minlength=3) for _ in range(number))


def test_rows_come_by_weight_and_without_weights_by_windows(stores):
    with mixed(stores, weights=[3, 0, 1]) as batches:
        share = counts(batches) / 480
        assert share[1] == 0
        assert share[0] == pytest.approx(0.75, abs=0.07)
    with mixed(stores) as batches:
        assert counts(batches) / 480 == pytest.approx(np.array([2, 3, 4]) / 9, abs=0.07)


def test_another_seed_draws_other_windows_and_every_window_is_drawn(stores):
    with mixed(stores) as one, mixed(stores) as again, mixed(stores, seed=8) as other:
        first = next(one)
        assert torch.equal(next(again).observation.state, first.observation.state)
        assert not torch.equal(next(other).observation.state, first.observation.state)
        assert not torch.equal(next(one).observation.state, first.observation.state)
        drawn = {
            (row[0, 0].item(), *seen[-1].tolist())
            for batch, _ in zip(one, range(60), strict=False)
            for row, seen in zip(batch.actions, batch.observation.state, strict=True)
        }
    assert len(drawn) == sum(int(store.lengths.sum()) for store in stores)


def test_every_row_says_what_is_wanted_in_its_store(stores):
    goals = [[1.0, 0.0, 0.5], [0.0, 2.0, 0.5], [-1.0, -1.0, 0.5]]
    with mixed(stores, goals=goals) as batches:
        batch = next(batches)
    expected = torch.tensor(goals)[batch.actions[:, 0, 0].long()]
    assert torch.equal(batch.observation.goal, expected)
    assert batch.observation.images["hand"].shape == (12, 2, 8, 8, 3)
    assert torch.equal(batch.to(torch.device("cpu")).observation.goal, expected)


def test_a_restored_stream_goes_on_and_other_weights_are_refused(stores):
    with mixed(stores, weights=[1, 1, 1]) as batches:
        next(batches)
        state, later = batches.state_dict(), [next(batches) for _ in range(3)]
    with mixed(stores, weights=[1, 1, 1]) as again:
        again.load_state_dict(json.loads(json.dumps(state)))
        for batch in later:
            assert torch.equal(next(again).observation.state, batch.observation.state)
    with mixed(stores, weights=[1, 1, 2]) as other, pytest.raises(UserError, match="made with weights"):
        other.load_state_dict(state)


def test_the_parts_of_two_processes_are_the_batch(stores):
    whole = next(mixed(stores, weights=[1, 1, 1]))
    parts = [next(mixed(stores, weights=[1, 1, 1], rank=rank, world_size=2)) for rank in range(2)]
    assert torch.equal(torch.cat([part.observation.state for part in parts]), whole.observation.state)
    assert torch.equal(torch.cat([part.actions for part in parts]), whole.actions)
    windows = DemoWindows(stores[0], horizon=2, cameras=["front"])
    single = next(DemoBatches(windows, batch_size=4))
    shared = [next(DemoBatches(windows, batch_size=4, rank=rank, world_size=2)) for rank in range(2)]
    assert torch.equal(torch.cat([part.actions for part in shared]), single.actions)
    assert torch.equal(
        torch.cat([part.observation.images["front"] for part in shared]), single.observation.images["front"]
    )


def test_statistics_over_stores_are_those_of_all_their_steps(stores, tmp_path):
    joined = DemoStore.create(tmp_path / "joined", SPEC)
    for store in stores[:2]:
        for number in range(len(store)):
            joined.append(dataclasses.replace(store.episode(number), seed=1000 + len(joined)))
    over = compute_mixture_statistics([(stores[0], [0, 1]), (stores[1], [0, 1, 2])])
    of = compute_statistics(joined, range(5))
    for mine, theirs in ((over.state, of.state), (over.actions, of.actions)):
        for name, value in vars(mine).items():
            np.testing.assert_allclose(value, getattr(theirs, name), err_msg=name)


def test_stores_must_agree_in_all_but_the_task(stores, tmp_path):
    assert common_spec(stores).task == "Task0 + Task1 + Task2"
    assert common_spec(stores[:1]) == stores[0].spec
    recorded = [
        DemoStore.create(tmp_path / str(number), dataclasses.replace(SPEC, source=source, licence=source[:2]))
        for number, source in enumerate(("by hand", "", "an expert", "by hand"))
    ]
    assert (common_spec(recorded).source, common_spec(recorded).licence) == ("by hand + an expert", "by + an")
    other = DemoStore.create(tmp_path / "other", dataclasses.replace(SPEC, action_names=("u", "w")))
    with pytest.raises(UserError, match=r"cannot learn from both .*action_names"):
        common_spec([stores[0], other])


def test_stores_may_differ_in_cameras_that_are_not_used(stores, tmp_path):
    more = SPEC.cameras | {"side": CameraSpec(height=8, width=12)}
    other = DemoStore.create(tmp_path / "other", dataclasses.replace(SPEC, cameras=more))
    with pytest.raises(UserError, match=r"only B has side\. .* policy\.conditioning\.cameras=\[front"):
        common_spec([stores[0], other])
    with pytest.raises(UserError, match=r"only A has side"):
        common_spec([other, stores[0]], ["front", "side"])
    for cameras in (["front"], []):
        assert common_spec([other, stores[0]], cameras).cameras == SPEC.cameras
    assert common_spec([other], ["front"]) == other.spec


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0, 1.0], [0.0, 0.0, 0.0], [1.0, float("nan"), 1.0]])
def test_weights_must_fit(stores, weights):
    with pytest.raises(UserError, match="data_weights"):
        mixed(stores, weights=weights)


def test_goals_are_one_hot_or_read_from_a_file(tmp_path):
    assert one_hot_goals(["a", "b"]) == {"a": [1.0, 0.0], "b": [0.0, 1.0]}
    (tmp_path / "goals.json").write_text(json.dumps({"a": [1, 2], "b": [0.5, -1], "more": [0, 0]}))
    save_file({"a": np.array([1, 2], np.float32), "b": np.array([0.5, -1], np.float32)}, tmp_path / "goals.safetensors")
    from_json, from_tensors = (
        read_goals(str(tmp_path / f"goals.{kind}"), ["b", "a"]) for kind in ("json", "safetensors")
    )
    assert from_json["b"] == from_tensors["b"] == [0.5, -1.0]
    assert set(from_json) == {"a", "b", "more"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": [1, 2]}', r"no numbers for the task 'b' of the demonstrations; it has 'a'\."),
        ("{}", r"no numbers for the tasks 'a', 'b' of the demonstrations; it has none\."),
        ('{"a": [1], "b": [1, 2]}', "the same length, not a 1, b 2"),
        ('{"a": [1], "b": ["x"]}', "finite numbers"),
        ('{"a": [1], "b": []}', "finite numbers"),
        ("[1, 2]", "JSON object"),
    ],
)
def test_strange_goals_are_refused(tmp_path: Path, content: str, message: str):
    (tmp_path / "goals.json").write_text(content)
    with pytest.raises(UserError, match=message):
        read_goals(str(tmp_path / "goals.json"), ["a", "b"])


def test_files_that_hold_no_goals_are_named(tmp_path: Path):
    with pytest.raises(UserError, match="no goals file"):
        read_goals(str(tmp_path / "none.json"), ["a"])
    (tmp_path / "broken.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match="neither"):
        read_goals(str(tmp_path / "broken.safetensors"), ["a"])


def test_actions_before_the_newest_frame(tmp_path):
    """As diffusion policy cuts its windows: the chunk begins `past_actions` earlier, the first action repeated."""
    store = make_store(tmp_path / "store", 2)
    settings = {"observation_steps": 2, "cameras": []}
    later = DemoWindows(store, horizon=3, **settings).gather(np.arange(store.lengths.sum()))
    earlier = DemoWindows(store, horizon=4, past_actions=1, **settings).gather(np.arange(store.lengths.sum()))
    assert torch.equal(earlier.actions[:, 1:], later.actions)
    assert torch.equal(earlier.ignored[:, 1:], later.ignored)
    first = [0, int(store.lengths[0])]
    assert earlier.ignored[:, 0].nonzero().flatten().tolist() == first
    assert torch.equal(earlier.actions[first, 0], earlier.actions[first, 1])
    with pytest.raises(UserError, match="past_actions=3"):
        DemoWindows(store, horizon=3, past_actions=3, **settings)
