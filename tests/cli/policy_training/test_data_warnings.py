"""What is said of demonstrations before a policy is trained on them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from demo_data import SPEC, make_episode, make_store
from scipy.spatial.transform import Rotation

from pixio_robot.cli.policy_training.data_split import DemoSource
from pixio_robot.cli.policy_training.data_warnings import data_warnings, untrained_tasks_warning
from pixio_robot.data.demos.episode_hash import hash_episode
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.demos.tasks import tasks_of
from policies.act import ACTConfig
from policies.config import PolicyConfig


def store_of(path: Path, seeds: range | list[int], length: int) -> DemoStore:
    """Episodes of odd seeds succeed."""
    store = DemoStore.create(path, SPEC)
    for seed in seeds:
        store.append(make_episode(seed, length))
    return store


def trained_on(store: DemoStore, episodes: list[int]) -> DemoSource:
    hashes = [hash_episode(store, episode) for episode in range(len(store))]
    return DemoSource(store=store, hashes=hashes, tasks=tasks_of(store), trainable=True, training=episodes)


def test_failures_are_counted_store_by_store_among_those_trained_on(tmp_path: Path) -> None:
    mixed, good = store_of(tmp_path / "mixed", range(5), 20), store_of(tmp_path / "good", [7, 9], 20)
    (note,) = data_warnings([trained_on(mixed, [0, 1, 2, 3]), trained_on(good, [0, 1])], PolicyConfig())
    assert "2 of the 4 training episodes" in note
    assert "50% of the steps" in note
    assert f"`pixio-robot data filter {mixed.path} out=NEW where=success`" in note


def test_episodes_that_are_in_two_stores_are_counted(tmp_path: Path) -> None:
    first, second = store_of(tmp_path / "first", [1, 3, 5], 20), store_of(tmp_path / "second", [3, 5, 7], 20)
    (note,) = data_warnings([trained_on(first, [0, 1, 2]), trained_on(second, [0, 1, 2])], PolicyConfig())
    assert "2 of the 6 training episodes repeat others" in note
    assert "twins=drop" in note
    # The second copy of 3 is not trained on.
    assert data_warnings([trained_on(first, [0, 1]), trained_on(second, [1, 2])], PolicyConfig()) == []
    of_another_task = dataclasses.replace(trained_on(second, [0, 1, 2]), tasks=["Other"] * 3)
    assert data_warnings([trained_on(first, [0, 1, 2]), of_another_task], PolicyConfig()) == []
    twice = store_of(tmp_path / "twice", [1, 3, 1], 20)
    (note,) = data_warnings([trained_on(twice, [0, 1, 2])], PolicyConfig())
    assert note.endswith("weigh more.")


def test_nothing_is_said_where_no_success_is_noted_at_all(tmp_path: Path) -> None:
    unknown = store_of(tmp_path / "unknown", [0, 2, 4], 20)
    assert data_warnings([trained_on(unknown, [0, 1, 2])], PolicyConfig()) == []


def test_a_horizon_beyond_the_episodes_is_told_with_one_that_would_do(tmp_path: Path) -> None:
    store = store_of(tmp_path / "short", [1, 3, 5], 41)
    (note,) = data_warnings([trained_on(store, [0, 1, 2])], ACTConfig())
    # Of the windows with r = 1..41 actions left, each of 100 places: 1 - 21 / 100.
    assert "policy.horizon=100 is longer" in note
    assert "median 41 steps): 79%" in note
    assert "Consider policy.horizon=16." in note
    assert data_warnings([trained_on(store, [0, 1, 2])], ACTConfig(horizon=16, execute=8)) == []


def test_nothing_is_said_of_a_horizon_that_most_episodes_have(tmp_path: Path) -> None:
    store = make_store(tmp_path / "demos", 2)
    assert not any("horizon" in note for note in data_warnings([trained_on(store, [0, 1])], PolicyConfig(horizon=2)))


def test_a_task_whose_only_episodes_are_held_out_is_told(tmp_path: Path) -> None:
    store = store_of(tmp_path / "demos", [1, 3, 5], 20)

    def source(training: list[int], held_out: list[int]) -> DemoSource:
        tasks = ["often", "often", "once"]
        return DemoSource(store=store, hashes=[], tasks=tasks, trainable=True, training=training, held_out=held_out)

    assert "every episode of 'once' is held out" in untrained_tasks_warning([source([0, 1], [2])])
    assert untrained_tasks_warning([source([0, 1], [2]), source([2], [0, 1])]) == ""


def test_actions_that_are_the_state_are_told_where_only_the_first_is_executed(tmp_path: Path) -> None:
    """As in many LeRobot data sets and UMI's: a policy that executes only the first action of a chunk stands still."""
    copied, own = (DemoStore.create(tmp_path / name, SPEC) for name in ("copied", "own"))
    for seed in (1, 3):
        episode = make_episode(seed, 20)
        own.append(episode)
        copied.append(dataclasses.replace(episode, actions=episode.state[:, 1:].copy()))
    (note,) = data_warnings([trained_on(copied, [0, 1])], PolicyConfig(execute=1))
    assert f"in {copied.path}, 2 of the 2 actions are what the state is at the same step" in note
    assert note.endswith("set policy.execute=8 or so.")
    (note,) = data_warnings([trained_on(copied, [0, 1])], PolicyConfig(horizon=1))
    assert note.endswith("set policy.execute=8 or so, of a policy.horizon of 16.")
    for settings in (PolicyConfig(), PolicyConfig(execute=1, ensemble_weight=0.01)):
        assert data_warnings([trained_on(copied, [0, 1])], settings) == []
    assert data_warnings([trained_on(own, [0, 1])], PolicyConfig(execute=1)) == []


@pytest.mark.parametrize("form", ["eef_quat", "eef_quat_wxyz", "eef_axis_angle"])
def test_rotations_with_two_signs_are_told(tmp_path: Path, form: str) -> None:
    """A gripper that points down, whose quaternion with w >= 0 flips with the slightest movement."""
    axes = {"eef_quat": "xyzw", "eef_quat_wxyz": "wxyz", "eef_axis_angle": "xyz"}[form]
    spec = dataclasses.replace(SPEC, action_names=tuple(f"{form}.{axis}" for axis in axes))
    stores = {sign: DemoStore.create(tmp_path / sign, spec) for sign in ("two", "one")}
    for seed in (1, 3):
        noise = 0.02 * np.random.default_rng(seed).normal(size=(20, 3))
        turns = Rotation.from_rotvec([np.pi, 0, 0]) * Rotation.from_rotvec(noise)
        for sign, store in stores.items():
            quats = turns.as_quat(canonical=True)
            if sign == "one":
                quats *= np.sign(quats[:, :1])
            angle = 2 * np.arccos(quats[:, 3:])
            rotvecs = quats[:, :3] / np.sin(angle / 2) * angle
            actions = {"eef_quat": quats, "eef_quat_wxyz": np.roll(quats, 1, -1), "eef_axis_angle": rotvecs}[form]
            store.append(dataclasses.replace(make_episode(seed, 20), actions=actions.astype(np.float32)))
    (note,) = data_warnings([trained_on(stores["two"], [0, 1])], PolicyConfig())
    assert f"in {stores['two'].path}, the same rotations have two signs: {form} (the rarer one in " in note
    assert note.endswith("out=NEW rotation=rot6d`, then data=NEW.")
    assert data_warnings([trained_on(stores["one"], [0, 1])], PolicyConfig()) == []
    assert data_warnings([trained_on(stores["two"], [0, 1])], PolicyConfig(action_pose_repr="relative")) == []


def test_rotations_whose_sign_is_another_in_another_store_are_told(tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, action_names=tuple(f"eef_quat.{axis}" for axis in "xyzw"))
    stores = {sign: DemoStore.create(tmp_path / name, spec) for name, sign in (("a", 1), ("b", -1))}
    for sign, store in stores.items():
        actions = sign * np.tile(np.array([1, 0, 0, 0], np.float32), (20, 1))
        store.append(dataclasses.replace(make_episode(sign + 1, 20), actions=actions))
    (note,) = data_warnings([trained_on(store, [0]) for store in stores.values()], PolicyConfig())
    assert f"in {tmp_path / 'a'}, {tmp_path / 'b'}, the same rotations have two signs: eef_quat (the rarer" in note
    assert "(the rarer one in 50% of the steps)" in note
    assert "`pixio-robot data actions EACH out=NEW rotation=rot6d`" in note
    assert data_warnings([trained_on(stores[1], [0])], PolicyConfig()) == []


def test_different_rotations_have_no_common_sign(tmp_path: Path) -> None:
    """Two poses 170 degrees apart: whether their quaternions point to the same side means nothing."""
    spec = dataclasses.replace(SPEC, action_names=tuple(f"eef_quat.{axis}" for axis in "xyzw"))
    store = DemoStore.create(tmp_path / "s", spec)
    near, far = [np.sin(0.3), 0, 0, np.cos(0.3)], [-np.sin(1.3), 0, 0, np.cos(1.3)]
    assert np.dot(near, far) < 0
    for seed in (1, 3):
        actions = np.array([near] * 10 + [far] * 10) + 0.01 * np.random.default_rng(seed).normal(size=(20, 4))
        store.append(dataclasses.replace(make_episode(seed, 20), actions=actions.astype(np.float32)))
    assert data_warnings([trained_on(store, [0, 1])], PolicyConfig()) == []
