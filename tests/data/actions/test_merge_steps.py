"""Merged deltas lead where all of them led, and what they are stands in their names."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from demo_data import DELTAS, spec_of_deltas
from scipy.spatial.transform import Rotation

from pixio_robot.cli.main import main
from pixio_robot.data.actions.merge_steps import plan_merge
from pixio_robot.data.actions.rotations import ROTATION_SIZES
from pixio_robot.data.demos.editing.convert_actions import convert_actions
from pixio_robot.data.demos.editing.resample import subsample
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.errors import UserError
from pixio_robot.types import Episode

POSE = (*(f"eef_pos.{axis} [m]" for axis in "xyz"), *(f"eef_quat_site.{axis} [1]" for axis in "xyzw"))
SPEC = spec_of_deltas("t", POSE)


def followed(n: int) -> tuple[Episode, np.ndarray, Rotation]:
    """An episode in which each action leads exactly to the next pose, and its n + 1 positions and rotations."""
    rng = np.random.default_rng(n)
    actions = rng.uniform(-1, 1, (n, 7)).astype(np.float32)
    positions = np.cumsum(np.concatenate([np.zeros((1, 3)), 0.05 * actions[:, :3]]), 0)
    turns = [Rotation.identity()]
    for action in actions:
        turns.append(Rotation.from_rotvec(0.5 * action[3:6]) * turns[-1])
    rotations = Rotation.concatenate(turns)
    state = np.concatenate([positions, rotations.as_quat()], 1)[:n].astype(np.float32)
    rewards = np.zeros(n, np.float32)
    episode = Episode(images={}, state=state, actions=actions, rewards=rewards, success=True, seed=0)
    return episode, positions, rotations


@pytest.mark.parametrize("way", ["sum", "mean"])
@pytest.mark.parametrize("form", sorted(ROTATION_SIZES))
def test_merged_deltas_lead_to_the_pose_after_their_steps(way: str, form: str) -> None:
    stride, n = 3, 8  # the last two steps are merged, too
    episode, positions, rotations = followed(n)
    spec = SPEC
    if form != "axis_angle":
        turned = convert_actions(spec, rotation=form)
        episode, spec = turned.change(episode), turned.spec
    slower = subsample(spec, stride, way)
    merged = slower.change(episode)
    ends = [3, 6, 8]
    exact = dataclasses.replace(slower.spec, simulator="mujoco")  # whose states are where the controller starts
    absolute = convert_actions(exact, "absolute", "quat").change(merged).actions
    np.testing.assert_allclose(absolute[:, :3], positions[ends], atol=1e-5)
    found = Rotation.from_quat(absolute[:, 3:7])
    np.testing.assert_allclose((found * rotations[ends].inv()).magnitude(), 0, atol=1e-5)
    assert np.array_equal(absolute[:, 7], episode.actions[[2, 5, 7], -1])


def test_mean_multiplies_the_units() -> None:
    merged = plan_merge(DELTAS, 3, "mean")
    assert merged.names[:4] == (
        *(f"eef_delta_pos.{axis} [0.15 m]" for axis in "xyz"),
        "eef_delta_axis_angle.x [1.5 rad]",
    )
    assert merged.names[6] == DELTAS[6]
    assert "means 3 times as much" in merged.notes[0]
    along = np.ones((7, 7), np.float32)
    along[:, 4:6] = 0
    np.testing.assert_allclose(merged.merge(along)[:, 0], [1, 1, 1 / 3])
    np.testing.assert_allclose(merged.merge(along)[:, 3], [1, 1, 1 / 3])  # 0.5 of 1.5 rad about x


def test_sums_keep_the_units_and_tell_that_they_may_be_clipped() -> None:
    merged = plan_merge(DELTAS, 2, "sum")
    assert merged.names == DELTAS
    assert "may exceed 1" in merged.notes[0]
    assert plan_merge(tuple(name.replace("0.05 ", "").replace("0.5 ", "") for name in DELTAS), 2, "sum").notes == ()
    assert plan_merge([f"eef_delta_rot6d.{c}{a} [1]" for c in "xy" for a in "xyz"], 2, "sum").notes == ()


def test_deltas_of_joints_add_in_their_unit() -> None:
    joints = ("joint1_delta [0.05 rad]", "joint2_delta [0.5 rad]", "gripper")
    values = np.array([[1, 1, 0], [1, 0, 1], [0.5, 1, 0]])
    assert plan_merge(joints, 2, "sum").merge(values).tolist() == [[2, 1, 1], [0.5, 1, 0]]
    merged = plan_merge(joints, 2, "mean")
    assert merged.names == ("joint1_delta [0.1 rad]", "joint2_delta [rad]", "gripper")
    assert merged.merge(values).tolist() == [[1, 0.5, 1], [0.25, 0.5, 0]]


def test_the_grippers_of_two_arms_and_their_own_scales() -> None:
    names = [
        name.replace("eef", f"arm{arm}_eef").replace("gripper", f"arm{arm}_gripper")
        for arm in (0, 1)
        for name in DELTAS
    ]
    both, one = plan_merge(names, 2, "sum"), plan_merge(DELTAS, 2, "sum")
    values = np.random.default_rng(0).uniform(-1, 1, (5, 14))
    np.testing.assert_allclose(
        both.merge(values), np.concatenate([one.merge(values[:, :7]), one.merge(values[:, 7:])], 1)
    )


@pytest.mark.parametrize(
    ("names", "way", "message"),
    [
        (DELTAS, "last", "deltas: eef_delta_pos, eef_delta_axis_angle. Use actions=sum, or actions=mean"),
        (DELTAS, "first", "would lose the motion"),
        (("joint1_delta [0.05 rad]",), "last", "deltas: joint1_delta"),
        (POSE, "sum", "absolute: eef_pos, eef_quat_site. Use actions=last"),
        (POSE, "mean", "Use actions=last"),
        ((*POSE[:3], *DELTAS[3:]), "last", r"both absolute \(eef_pos\) and deltas \(eef_delta_axis_angle\)"),
        (tuple(name.split(" [")[0] for name in DELTAS), "mean", "have none: eef_delta_pos, eef_delta_axis_angle. Name"),
        (("joint1_delta",), "mean", "have none: joint1_delta"),
        (DELTAS, "lst", "Did you mean 'last'"),
    ],
)
def test_a_wrong_way_is_refused(names: tuple[str, ...], way: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan_merge(names, 2, way)


@pytest.mark.parametrize("way", ["first", "last", "sum", "mean"])
def test_unknown_columns_are_merged_as_one_says_and_named(way: str) -> None:
    values = np.array([[1.0, 2], [3, 4], [5, 6]])
    merged = plan_merge(("u", "gripper"), 2, way)
    assert merged.names == ("u", "gripper")
    assert merged.merge(values)[:, 0].tolist() == {"first": [1, 5], "last": [3, 5], "sum": [4, 5], "mean": [2, 5]}[way]
    assert merged.notes[-1].endswith("which these names do not say: u")


def test_what_only_starts_like_a_pose_is_told() -> None:
    planar = ("eef_pos.x [m]", "eef_pos.y [m]")
    merged = plan_merge(planar, 2, "last")
    assert merged.merge(np.eye(2)).tolist() == [[0, 1]]
    assert "columns are not eef_pos" in merged.notes[0]
    deltas = plan_merge(tuple(name.replace("pos", "delta_pos") for name in planar), 2, "mean")
    assert deltas.names == ("eef_delta_pos.x [2 m]", "eef_delta_pos.y [2 m]")


def test_the_slower_spec_has_the_names_and_the_notes() -> None:
    edit = subsample(SPEC, 2, "mean")
    names = plan_merge(DELTAS, 2, "mean")
    assert edit.spec == dataclasses.replace(SPEC, action_names=names.names, control_hz=10.0)
    assert edit.notes == names.notes


def test_the_command_shows_the_notes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    DemoStore.create(tmp_path / "s", SPEC).append(followed(8)[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pixio-robot", "data", "subsample", "s", "out=x", "stride=2", "actions=mean"])
    assert main() == 0
    assert "a value of 1 means 2 times as much" in capsys.readouterr().out
    assert DemoStore.open(tmp_path / "x").spec.action_names[0] == "eef_delta_pos.x [0.1 m]"
