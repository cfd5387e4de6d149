"""Edits: what comes out is what was asked for, whole or not at all, and the sources stay as they are."""

import dataclasses
import re
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from demo_data import SPEC, make_episode, make_store, same
from hypothesis import given
from hypothesis import strategies as st

from pixio_robot.data.actions.merge_steps import MERGE_METHODS
from pixio_robot.data.demos.editing.filter_expression import COMPARISONS, EXAMPLE, EpisodeProperties, parse_filter
from pixio_robot.data.demos.editing.merge import find_duplicates, merge_stores
from pixio_robot.data.demos.editing.rename import SpecOverrides, rename_columns
from pixio_robot.data.demos.editing.resample import Edit, subsample
from pixio_robot.data.demos.editing.resize import fit_images, resize_images
from pixio_robot.data.demos.editing.rewrite import (
    TASK,
    NewStore,
    episode_task,
    filter_episodes,
    find_matching_episodes,
    sample_episodes,
    select_episodes,
    split_store,
    write_stores,
)
from pixio_robot.data.demos.overridden_steps import OVERRIDDEN_STEPS
from pixio_robot.data.demos.spec_differences import describe_differences
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.demos.verify import TIMESTAMPS, verify_store
from pixio_robot.errors import UserError
from pixio_robot.interop.demo_formats import write_atomically
from pixio_robot.types import CameraSpec


def apply(store: DemoStore, edit: Edit, out: Path) -> DemoStore:
    write_stores(out, {"": select_episodes(store, edit=edit)})
    result = DemoStore.open(out)
    assert verify_store(result) == []
    return result


def test_nothing_is_written_into_a_store(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", episodes=1)
    (tmp_path / "link").symlink_to("gone")
    (tmp_path / "inside").symlink_to("s/episodes")
    for out, message in (
        (tmp_path / "s" / "episodes" / "000001", "is inside the store .*/s, which it would damage"),
        (tmp_path / "inside" / "new", "is inside the store .*/s, which it would damage"),
        (tmp_path / "link", "is a symbolic link to gone, which does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            write_stores(out, {"": select_episodes(store)})
        with pytest.raises(UserError, match=message), write_atomically(out):
            pass
        with pytest.raises(UserError, match=message):
            DemoStore.create(out, SPEC, exist_ok=True)
    assert verify_store(DemoStore.open(tmp_path / "s")) == []


def test_a_merge_of_a_split_is_the_whole(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", episodes=7)
    write_stores(tmp_path / "parts", split_store(store, 0.3, seed=1))
    parts = [DemoStore.open(tmp_path / "parts" / name) for name in ("train", "validation")]
    assert [len(part) for part in parts] == [5, 2]
    write_stores(tmp_path / "again", {"": merge_stores(parts)})
    again = DemoStore.open(tmp_path / "again")
    assert sorted(again.seeds) == store.seeds
    assert again.spec == store.spec
    assert all(same(again.episode(number), make_episode(again.seeds[number])) for number in range(7))


def test_what_is_held_out_is_in_no_other_copy_in_the_training_part(tmp_path: Path) -> None:
    store, again = (make_store(tmp_path / name, episodes=6) for name in ("s", "again"))
    write_stores(tmp_path / "twice", {"": merge_stores([store, again])})
    write_stores(tmp_path / "parts", split_store(DemoStore.open(tmp_path / "twice"), 0.3, seed=0))
    train, validation = (DemoStore.open(tmp_path / "parts" / name) for name in ("train", "validation"))
    assert len(validation) == 4
    assert not set(train.seeds) & set(validation.seeds)
    assert set(train.seeds) | set(validation.seeds) == set(store.seeds)
    alike = DemoStore.create(tmp_path / "alike", SPEC)
    for _ in range(3):
        alike.append(make_episode(1))
    with pytest.raises(UserError, match="none is left to train on"):
        split_store(alike, 0.3, seed=0)


def test_a_merge_of_two_tasks_says_which_is_which(tmp_path: Path) -> None:
    stores = [make_store(tmp_path / "a", episodes=2)]
    other = DemoStore.create(tmp_path / "b", dataclasses.replace(SPEC, task="Other", licence="CC0"))
    other.append(make_episode(5))
    write_stores(tmp_path / "both", {"": merge_stores([*stores, other])})
    both = DemoStore.open(tmp_path / "both")
    assert both.spec.task == "Other + Test"
    assert both.spec.licence == "CC0"
    assert [episode_task(both, number) for number in range(3)] == ["Test", "Test", "Other"]
    # Each task's own store says so, as training on several stores wants it.
    write_stores(tmp_path / "one", {"": filter_episodes(both, "task == Other")})
    one = DemoStore.open(tmp_path / "one")
    assert (one.seeds, one.spec.task) == ([5], "Other")


def test_edits_of_lossy_archives_lose_no_more(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", episodes=2)
    write_stores(
        tmp_path / "packed",
        {"": dataclasses.replace(select_episodes(store, range(2)), image_codec="jpeg")},
    )
    packed = DemoStore.open(tmp_path / "packed")
    assert not same(packed.episode(0), store.episode(0))
    # Neither the frames that lost already, nor those of the other store that a merge brings in.
    for name, new in (("one", filter_episodes(packed, "episode == 0")), ("both", merge_stores([packed, store]))):
        write_stores(tmp_path / name, {"": new})
        assert same(DemoStore.open(tmp_path / name).episode(0), packed.episode(0))
    assert same(DemoStore.open(tmp_path / "both").episode(2), store.episode(0))
    # What loses nothing stays as small as it is.
    write_stores(tmp_path / "z", {"": dataclasses.replace(select_episodes(store, [0]), image_codec="zstd")})
    assert filter_episodes(DemoStore.open(tmp_path / "z"), "episode == 0").image_codec == "zstd"


def test_stores_that_mean_other_things_are_not_merged(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a", episodes=1)
    other = DemoStore.create(tmp_path / "b", dataclasses.replace(SPEC, control_hz=20.0))
    other.append(make_episode(1))
    with pytest.raises(UserError, match=r"/a \(A\) and .*/b \(B\) cannot be merged. control_hz: A has 10, B has 20. `"):
        merge_stores([store, other])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"robot": "Panda"},
            "robot: A has 'none', B has 'Panda'. `data rename` unifies different names for the same thing.",
        ),
        (
            {"action_names": ("u", "w"), "state_names": SPEC.state_names[:2], "controller": "OSC"},
            "controller: A has 'none', B has 'OSC'; state_names: only A has z [m]; action_names: only A has v, only B "
            "has w. `data rename` unifies different names for the same thing. `data actions` converts poses.",
        ),
        ({"action_names": ("v", "u")}, "action_names: different order: number 0 is u in A and v in B. `data"),
        ({"cameras": {"front": CameraSpec(height=6, width=10)}}, "cameras: only A has hand; camera 'front': A has 12"),
        ({"source": "elsewhere", "licence": "CC0", "simulator_version": "1"}, ""),
    ],
)
def test_each_difference_is_told_once(change: dict, message: str) -> None:
    told = describe_differences(SPEC, dataclasses.replace(SPEC, **change), "A", "B")
    assert told.startswith(message)
    assert bool(told) == bool(message)


def test_episodes_that_are_there_twice_are_found(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a", episodes=3)
    with pytest.raises(UserError, match="/a is listed twice"):
        merge_stores([store, DemoStore.open(tmp_path / "a" / ".." / "a")])
    again = DemoStore.create(tmp_path / "b", SPEC)
    for seed in (7, 1):
        again.append(make_episode(seed))
    assert find_duplicates([store, again]) == {(1, 1)}
    write_stores(tmp_path / "both", {"": merge_stores([store, again], {(1, 1)})})
    assert DemoStore.open(tmp_path / "both").seeds == [0, 1, 2, 7]


def test_nothing_is_left_behind_when_an_edit_fails(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", episodes=3)
    file = store.episode_path(2) / "actions" / "c" / "0" / "0"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(UserError, match="000002/actions is damaged"):
        write_stores(tmp_path / "out", {"": select_episodes(DemoStore.open(tmp_path / "s"), range(3))})
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_an_existing_place_is_not_written_to(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", episodes=1)
    with pytest.raises(UserError, match="already exists; choose another out="):
        write_stores(tmp_path / "s", {"": select_episodes(store, [0])})


@given(stride=st.integers(1, 9), length=st.integers(1, 12), joined=st.sampled_from(sorted(MERGE_METHODS)))
def test_a_stride_keeps_every_kth_frame_and_the_return(stride: int, length: int, joined: str) -> None:
    episode, edit = make_episode(3, length), subsample(SPEC, stride, joined)
    found = edit.change(episode)
    assert np.array_equal(found.images["front"], episode.images["front"][::stride])
    assert np.array_equal(found.state, episode.state[::stride])
    assert len(found) == -(-length // stride)
    assert found.rewards.sum() == pytest.approx(episode.rewards.sum(), rel=1e-4, abs=1e-5)
    expected = {"sum": episode.actions.sum(0), "first": None, "last": None, "mean": None}[joined]
    if expected is not None:
        np.testing.assert_allclose(found.actions.sum(0), expected, rtol=1e-4, atol=1e-5)
    if joined == "last":
        assert np.array_equal(found.actions[-1], episode.actions[-1])
    assert edit.spec.control_hz == SPEC.control_hz / stride


@pytest.mark.parametrize("joined", ["sum", "mean"])
def test_a_stride_leaves_a_gripper_its_command_and_a_step_its_time_and_fate(tmp_path: Path, joined: str) -> None:
    spec = dataclasses.replace(SPEC, action_names=("eef_delta_pos.x [0.05 m]", "gripper [-1 opens, 1 closes]"))
    store = DemoStore.create(tmp_path / "s", spec)
    episode = make_episode(0, 7)
    episode.actions[:, 1] = [-1, -1, -1, -1, 1, 1, 1]
    times = [step / spec.control_hz for step in range(7)]
    store.append(dataclasses.replace(episode, info={TIMESTAMPS: times, OVERRIDDEN_STEPS: [4, 5, 6]}))
    thinned = apply(store, subsample(spec, 3, joined), tmp_path / "thinned")  # verified: the times fit the new rate
    assert thinned.actions(0)[:, 1].tolist() == [-1, 1, 1]
    assert thinned.info(0) == {TIMESTAMPS: [0.0, 0.3, 0.6], OVERRIDDEN_STEPS: [1, 2]}
    with pytest.raises(UserError, match=r"info\.overridden_steps must list numbers of its steps, 0\.\.6"):
        subsample(spec, 3, joined).change(dataclasses.replace(episode, info={OVERRIDDEN_STEPS: ["4"]}))
    np.testing.assert_allclose(thinned.actions(0)[0, 0], getattr(episode.actions[:3, 0], joined)(), rtol=1e-6)


def test_a_stride_asks_how_actions_are_joined() -> None:
    with pytest.raises(UserError, match=r"actions=first\|last\|sum\|mean"):
        subsample(SPEC, 2, "")


def test_renaming_there_and_back(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", episodes=2)
    swapped = apply(store, rename_columns(SPEC, {"front": "hand", "hand": "front"}), tmp_path / "swapped")
    assert np.array_equal(swapped.images(0, "hand"), store.images(0, "front"))
    back = apply(swapped, rename_columns(swapped.spec, {"front": "hand", "hand": "front"}), tmp_path / "back")
    assert same(back.episode(1), make_episode(1))
    with pytest.raises(UserError, match="same name"):
        rename_columns(SPEC, {"front": "hand"})
    with pytest.raises(UserError, match="Did you mean 'front'"):
        rename_columns(SPEC, {"frnt": "x"})


def test_columns_robot_and_task_are_renamed_and_their_numbers_stay(tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, state_names=("eef.x [m]", "eef.y [m]", "u"), cameras=SPEC.cameras)
    store = DemoStore.create(tmp_path / "s", spec)
    for seed in range(2):
        store.append(dataclasses.replace(make_episode(seed), info={TASK: "Test"}))
    words = SpecOverrides(robot="UR5e", controller="cartesian", task="Pick")
    edit = rename_columns(spec, {"eef": "eef_pos", "u": "grip [1]", "front": "top"}, words)
    # What is called alike in state and actions means the same.
    assert edit.spec.state_names == ("eef_pos.x [m]", "eef_pos.y [m]", "grip [1]")
    assert edit.spec.action_names == ("grip [1]", "v")
    assert "action_names: u -> grip [1]" in edit.notes
    done = apply(store, edit, tmp_path / "t")
    assert (done.spec.robot, done.spec.controller, done.spec.task) == ("UR5e", "cartesian", "Pick")
    assert episode_task(done, 1) == "Pick"
    assert np.array_equal(done.actions(1), store.actions(1))
    assert np.array_equal(done.images(1, "top"), store.images(1, "front"))
    whole = rename_columns(spec, {}, SpecOverrides(action_names=["eef_pos.x [m]", "eef_pos.y [m]"])).spec
    assert whole.action_names == ("eef_pos.x [m]", "eef_pos.y [m]")


@pytest.mark.parametrize(
    ("names", "words", "message"),
    [
        ({"ux": "w"}, SpecOverrides(), "Unknown camera or column 'ux'"),
        ({"u": "v"}, SpecOverrides(), "Two columns of action_names would have the same name: v"),
        ({}, SpecOverrides(action_names=["a", "b", "c"]), "action_names= has 3 names for 2: u, v"),
        ({}, SpecOverrides(task="Both"), "would replace several tasks"),
    ],
)
def test_names_that_do_not_fit_are_refused(names: dict, words: SpecOverrides, message: str) -> None:
    with pytest.raises(UserError, match=message):
        rename_columns(dataclasses.replace(SPEC, task="One + Other"), names, words)


def test_resizing_averages_and_intrinsics_follow(tmp_path: Path) -> None:
    camera = CameraSpec(height=12, width=10, intrinsics=(20.0, 24.0, 5.0, 6.0), mounted_on="world")
    spec = dataclasses.replace(SPEC, cameras={**SPEC.cameras, "front": camera})
    store = DemoStore.create(tmp_path / "s", spec)
    store.append(make_episode(0))
    small = apply(store, resize_images(spec, 6, 5, ["front"]), tmp_path / "small")
    assert small.spec.cameras["front"] == dataclasses.replace(
        camera, height=6, width=5, intrinsics=(10.0, 12.0, 2.5, 3.0)
    )
    assert small.spec.cameras["hand"] == SPEC.cameras["hand"]
    frames = store.images(0, "front").astype(float)
    blocks = frames.reshape(len(frames), 6, 2, 5, 2, 3).mean((2, 4))
    np.testing.assert_allclose(small.images(0, "front"), blocks, atol=0.51)
    assert np.array_equal(small.images(0, "hand"), store.images(0, "hand"))


@pytest.mark.parametrize(
    ("fit", "said"),
    [("stretch", "distorted to"), ("crop", "cropped to the shape of"), ("pad", "with black borders in")],
)
def test_another_shape_is_said_and_calibration_follows(tmp_path: Path, fit: str, said: str) -> None:
    """A square of 4 pixels at the right of the centre, which the calibration must find again."""
    camera = CameraSpec(height=24, width=32, intrinsics=(30.0, 30.0, 18.0, 12.0), fov_y_degrees=43.6)
    spec = dataclasses.replace(SPEC, cameras={"front": camera})
    frames = np.full((2, 24, 32, 3), 80, np.uint8)
    frames[:, 10:14, 18:22] = 255
    store = DemoStore.create(tmp_path / "s", spec)
    store.append(dataclasses.replace(make_episode(0, 2), images={"front": frames}))
    edit = resize_images(spec, 48, 48, fit=fit)
    assert f"camera front: 24 x 32 px {said} 48 x 48" in edit.notes
    assert len(edit.notes) == (2 if fit == "stretch" else 1)
    new = apply(store, edit, tmp_path / "new")
    image = new.images(0, "front")[0].astype(float)
    assert image.shape == (48, 48, 3)
    rows, columns = (np.flatnonzero((image[..., 0] > 180).any(axis)) for axis in (1, 0))
    fx, fy, cx, cy = new.spec.cameras["front"].intrinsics or ()
    # Its edges in the camera's directions.
    for ends, f, c, before in ((columns, fx, cx, (0 / 30, 4 / 30)), (rows, fy, cy, (-2 / 30, 2 / 30))):
        assert (ends[0] - c) / f == pytest.approx(before[0], abs=1 / f)
        assert (ends[-1] + 1 - c) / f == pytest.approx(before[1], abs=1 / f)
    assert (np.ptp(rows) == np.ptp(columns)) == (fit != "stretch")
    assert (image[0].max() == 0) == (fit == "pad")
    fov = new.spec.cameras["front"].fov_y_degrees or 0
    assert np.tan(np.radians(fov) / 2) * fy == pytest.approx(24, rel=0.01)
    assert resize_images(spec, 12, 16, fit=fit).notes == ()


def test_borders_are_added_to_one_frame_at_a_time() -> None:
    """Those of a whole episode would take more memory than its images."""
    frames = np.zeros((50, 120, 320, 3), np.uint8)
    tracemalloc.start()
    try:
        fit_images(frames, 16, 16, "pad")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < frames.nbytes / 2


def test_unknown_ways_to_fit_are_refused() -> None:
    with pytest.raises(UserError, match="Did you mean 'crop'"):
        resize_images(SPEC, 4, 4, fit="corp")


def test_drawn_episodes_are_different_and_repeatable(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", episodes=6)
    assert sample_episodes(store, 3, 1) == sample_episodes(store, 3, 1) == sorted(set(sample_episodes(store, 3, 1)))
    assert sample_episodes(store, 6, 0) == list(range(6))
    with pytest.raises(UserError, match="between 1 and the 6 episodes"):
        sample_episodes(store, 7, 0)


FACTS = EpisodeProperties(
    episode=3, length=40, seed=7, success=True, task="Lift", reward=1.5, info={"operator": "a", "n": 2}
)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("success", True),
        ("not success", False),
        ("success == false", False),
        ("length >= 40 and length<41", True),
        ("seed in 0..6", False),
        ("seed in 7..7", True),
        ("task == Lift", True),
        ("task != 'Pick Place'", True),
        ("reward > 1.4 and not (length < 10 or seed == 8)", True),
        ("not success or length == 40", True),
        ("success and seed == 1 or length == 40", True),
        ("success and (seed == 1 or length == 41)", False),
        ("info.operator == a", True),
        ("info.n >= 3", False),
        ("info.absent == 1", False),
        ("reward > -1e3", True),
        ("episode in (0, 1, 3)", True),
        ("episode in (0,1,2)", False),
        ("not episode in (0, 2..4)", False),
        ("episode not in (0, 2..4)", False),
        ("task not in ('Pick Place', Stack) and success", True),
        ("info.absent not in (1, 2)", False),
        ("task in (Stack, Lift)", True),
        ("task in ('Pick Place')", False),
        ("task in 'K'..'M'", True),
        ("task in ('A'..'C', \"X\"..'Z')", False),
        ("info.operator in (a, b) and success", True),
        ("success in (true)", True),
        ("success not in (true)", False),
    ],
)
def test_choices(where: str, expected: bool) -> None:
    assert parse_filter(where).holds(FACTS) is expected


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("", "but found the end"),
        ("sucess", "Did you mean 'success'"),
        ("length", "expected a comparison"),
        ("length = 3", "cannot be parsed from '= 3'"),
        ("length in 3", r"expected LOW..HIGH or \(A, B, ...\) after 'in'.*For example: success and"),
        ("episode in 0,1", "expected LOW..HIGH"),
        ("episode == 0,1", "expected 'and', 'or' or the end of the condition but found ','"),
        ("episode not == 3", "expected 'in' after 'not'"),
        ("episode in (0 1)", r"expected ',' or '\)'"),
        ("episode in (0,", "but found the end"),
        ("episode in (3..)", "cannot be parsed from '3..\\)'"),
        ("length == 1..3", "expected a single value"),
        ("length < 3 seed == 1", "expected 'and', 'or' or the end"),
        ("(success", r"expected '\)'"),
        ("__import__('os')", "Unknown property"),
    ],
)
def test_choices_that_are_not_understood(where: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_filter(where)


def test_the_example_of_the_message_is_understood() -> None:
    assert parse_filter(EXAMPLE).holds(FACTS)
    assert not parse_filter(EXAMPLE).holds(dataclasses.replace(FACTS, episode=8))


def test_text_is_not_compared_with_numbers() -> None:
    with pytest.raises(UserError, match=r"which cannot be compared with 1\.0\.\.3\.0"):
        parse_filter("task in (1..3)").holds(FACTS)
    with pytest.raises(UserError, match="task is 'Lift' in episode 3"):
        parse_filter("task < 3").holds(FACTS)


@given(sign=st.sampled_from(sorted(set(COMPARISONS) - {"in"})), value=st.integers(-50, 50), length=st.integers(0, 50))
def test_comparisons_are_those_of_numbers(sign: str, value: int, length: int) -> None:
    facts = dataclasses.replace(FACTS, length=length)
    assert parse_filter(f"length {sign} {value}").holds(facts) == COMPARISONS[sign](length, value)


def test_none_fits(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="matches none of the 2 episodes"):
        filter_episodes(make_store(tmp_path / "s", episodes=2), "length > 1000")


def test_a_key_that_was_noted_somewhere_is_known_everywhere_and_others_are_not(tmp_path: Path) -> None:
    plain, noted = make_store(tmp_path / "plain", episodes=1), DemoStore.create(tmp_path / "noted", SPEC)
    noted.append(dataclasses.replace(make_episode(0), info={"operator": "ann"}))
    assert find_matching_episodes([plain, noted], "info.operator == ann") == [[], [0]]
    with pytest.raises(UserError, match=r"'info\.operater'\. Did you mean 'info\.operator'"):
        find_matching_episodes([plain, noted], "success or info.operater == ann")


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([0.0, 0.1, 0.2, 0.3], None),
        ([0.0, 0.11, 0.19, 0.3], None),
        ([0.0, 0.1, 0.4, 0.5], "300 ms pass between step 1 and 2, but control_hz=10 implies 100"),
        ([0.0, 0.1, 0.05, 0.2], "-50 ms pass between step 1 and 2"),
        ([0.0, 0.1], r"shape \(2,\) for 4 steps"),
        (["a"] * 4, "not a list of numbers"),
    ],
)
def test_verify_holds_timestamps_against_the_rate(tmp_path: Path, times: list, message: str | None) -> None:
    store = DemoStore.create(tmp_path / "s", SPEC)
    store.append(dataclasses.replace(make_episode(0, length=4), info={TIMESTAMPS: times}))
    problems = verify_store(store)
    assert len(problems) == (message is not None)
    if message is not None:
        assert re.search(message, problems[0])


def test_verify_names_the_action_that_no_controller_takes(tmp_path: Path) -> None:
    store = DemoStore.create(tmp_path / "s", SPEC)
    episode = make_episode(0, length=5)
    episode.actions[:] = 0.5
    episode.actions[3, 1] = 1.5
    store.append(episode)
    assert verify_store(store, action_range=(-2, 2)) == []
    assert verify_store(store, action_range=(-1, 1)) == [
        "episode 0, actions: 1 values outside -1..1, the first at step 3: v is 1.5"
    ]


def test_verify_finds_a_camera_that_nobody_named(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", episodes=2)
    (store.episode_path(1) / "images" / "side").mkdir()
    assert verify_store(store) == ["episode 1, camera side: it is not in the DemoSpec"]


def test_a_full_disk_keeps_nothing_of_an_edit(tmp_path: Path) -> None:
    make_store(tmp_path / "s")
    code = f"""
        import resource, signal, sys
        from pathlib import Path
        from pixio_robot.data.demos.editing.rewrite import open_for_streaming, select_episodes, write_stores
        from pixio_robot.errors import UserError
        store = open_for_streaming(Path({str(tmp_path / "s")!r}))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        try:
            contents = {{"": select_episodes(store, range(len(store)))}}
            write_stores(Path({str(tmp_path / "out")!r}), contents)
        except UserError as error:
            assert "Nothing was kept" in str(error), error
            sys.exit(7)
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(code)]).returncode == 7
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_an_episode_that_does_not_fit_is_named(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s")
    wrong = dataclasses.replace(store.episode(2), rewards=np.full(1, np.nan, np.float32))
    episodes = iter([store.episode(0), store.episode(1), wrong])
    with pytest.raises(UserError, match=r"Episode 2 cannot be written to .*rewards"):
        write_stores(tmp_path / "out", {"": NewStore(spec=store.spec, count=3, episodes=episodes)})
    assert not (tmp_path / "out").exists()
