"""Converted actions lead to the same poses, and what they are stands in the DemoSpec."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from demo_data import DELTAS, spec_of_deltas
from scipy.spatial.transform import Rotation

from pixio_robot.cli.main import main
from pixio_robot.data.actions.pose_columns import find_pose_columns, find_possible_poses
from pixio_robot.data.actions.rotations import ROTATION_SIZES
from pixio_robot.data.demos.editing.convert_actions import convert_actions, is_motionless, warn_about_clipped_deltas
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.demos.verify import verify_store
from pixio_robot.errors import UserError
from pixio_robot.types import Episode

POSE = (*(f"eef_pos.{axis} [m]" for axis in "xyz"), *(f"eef_rot6d.{c}{a} [1]" for c in "xy" for a in "xyz"))
SPEC = spec_of_deltas("Lift", (*POSE, "gripper.finger1 [m]"))
MUJOCO = dataclasses.replace(SPEC, simulator="mujoco")  # whose states are where the controller starts


def episode(seed: int = 0, n: int = 7) -> Episode:
    rng = np.random.default_rng(seed)
    turn = Rotation.random(n, random_state=seed).as_matrix()
    state = np.concatenate([rng.normal(size=(n, 3)), turn[:, :, 0], turn[:, :, 1], rng.normal(size=(n, 1))], 1)
    return Episode(
        images={},
        state=state.astype(np.float32),
        actions=rng.uniform(-1, 1, (n, 7)).astype(np.float32),
        rewards=np.zeros(n, np.float32),
        success=True,
        seed=seed,
    )


def test_absolute_targets_are_where_the_controller_goes() -> None:
    edit = convert_actions(MUJOCO, "absolute")
    assert edit.spec.action_names == (
        *(f"eef_pos.{axis} [m]" for axis in "xyz"),
        *(f"eef_axis_angle.{axis} [rad]" for axis in "xyz"),
        DELTAS[-1],
    )
    assert edit.spec.controller == "OSC_POSE absolute"
    before = episode()
    after = edit.change(before)
    np.testing.assert_allclose(after.actions[:, :3], before.state[:, :3] + 0.05 * before.actions[:, :3], atol=1e-6)
    x, y = before.state[:, 3:6], before.state[:, 6:9]
    start = Rotation.from_matrix(np.stack([x, y, np.cross(x, y)], -1))
    expected = Rotation.from_rotvec(0.5 * before.actions[:, 3:6]) * start
    np.testing.assert_allclose((Rotation.from_rotvec(after.actions[:, 3:6]) * expected.inv()).magnitude(), 0, atol=1e-5)
    np.testing.assert_array_equal(after.actions[:, 6], before.actions[:, 6])


def test_robosuites_controller_starts_a_physics_step_after_the_recorded_pose() -> None:
    # Moving steadily, 10 mm and 0.05 rad per control step of 1/20 s, of which a physics step of 2 ms is a 25th.
    steps = np.arange(5)
    turns = Rotation.from_rotvec(np.outer(0.05 * steps, [0, 0, 1])).as_matrix()
    state = np.concatenate([0.01 * steps[:, None] * [1, 0, 0], turns[:, :, 0], turns[:, :, 1], np.zeros((5, 1))], 1)
    before = dataclasses.replace(episode(n=5), state=state.astype(np.float32), actions=np.zeros((5, 7), np.float32))
    assert (SPEC.simulator, SPEC.control_hz) == ("robosuite", 20)
    after = convert_actions(SPEC, "absolute").change(before).actions
    lead = np.array([0, 1, 1, 1, 1]) / 25
    np.testing.assert_allclose(after[:, 0], 0.01 * (steps + lead), atol=1e-7)
    np.testing.assert_allclose(after[:, 5], 0.05 * (steps + lead), atol=1e-6)


@pytest.mark.parametrize("form", ["axis_angle", "quat"])
def test_rotations_around_half_a_turn_do_not_jump(form: str) -> None:
    # A gripper that points down and trembles.
    down = Rotation.from_rotvec([np.pi, 0, 0])
    tremble = Rotation.from_rotvec(np.random.default_rng(0).normal(0, 0.02, (50, 3)))
    turns = (tremble * down).as_matrix()
    state = np.concatenate([np.zeros((50, 3)), turns[:, :, 0], turns[:, :, 1], np.zeros((50, 1))], 1)
    before = dataclasses.replace(episode(n=50), state=state.astype(np.float32), actions=np.zeros((50, 7), np.float32))
    values = convert_actions(MUJOCO, "absolute", form).change(before).actions[:, 3:-1]
    assert np.abs(np.diff(values, axis=0)).max() < 0.2
    assert values[0, 0] > 0.9  # the axis on the side of x + y >= 0


@pytest.mark.parametrize("form", sorted(ROTATION_SIZES))
def test_there_and_back_is_the_identity(form: str) -> None:
    there = convert_actions(SPEC, "absolute", form)
    assert there.spec.action_dim == 3 + ROTATION_SIZES[form] + 1
    back = convert_actions(there.spec, "delta", "axis_angle")
    assert dataclasses.replace(back.spec) == SPEC
    before = episode(3)
    np.testing.assert_allclose(back.change(there.change(before)).actions, before.actions, atol=2e-5)
    # The form alone, of deltas.
    if form != "axis_angle":
        turned = convert_actions(SPEC, rotation=form)
        again = convert_actions(turned.spec, rotation="axis_angle", scale_rotation=0.5)
        np.testing.assert_allclose(again.change(turned.change(before)).actions, before.actions, atol=2e-5)
        assert turned.spec.controller == SPEC.controller


def test_two_arms_start_from_their_own_poses() -> None:
    names = [name.replace("eef", f"arm{arm}_eef") for arm in (0, 1) for name in DELTAS[:3]]
    state = [name.replace("eef", f"robot{arm}_eef") for arm in (1, 0) for name in POSE[:3]]
    edit = convert_actions(dataclasses.replace(MUJOCO, action_names=names, state_names=state), "absolute")
    before = dataclasses.replace(episode(), actions=np.zeros((7, 6), np.float32), state=episode().state[:, :6])
    np.testing.assert_allclose(edit.change(before).actions, before.state[:, [3, 4, 5, 0, 1, 2]])


def test_blocks_are_read_from_names() -> None:
    found = find_pose_columns(SPEC.action_names)
    assert [(block.what, block.delta, block.first, block.scale[0]) for block in found] == [
        ("pos", True, 0, 0.05),
        ("axis_angle", True, 3, 0.5),
    ]
    assert find_pose_columns(("joint1_delta [0.05 rad]", "gripper")) == []
    with pytest.raises(UserError, match="columns are not eef_pos"):
        find_pose_columns(("eef_pos.x [m]", "eef_pos.z [m]", "eef_pos.y [m]"))


def test_poses_of_other_bodies_stay_and_the_grippers_own_under_other_names_are_refused() -> None:
    beside = dataclasses.replace(SPEC, action_names=(*SPEC.action_names, "head.yaw", "camera.pitch"))
    assert convert_actions(beside, "absolute").spec.action_names[-2:] == ("head.yaw", "camera.pitch")
    for name in ("rot.x", "left_tcp.x", "pose0"):
        with pytest.raises(UserError, match=f"have unknown names: {name}"):
            convert_actions(dataclasses.replace(SPEC, action_names=(*SPEC.action_names, name)), "absolute")


def test_very_small_units_are_read_as_they_are_written() -> None:
    small = convert_actions(convert_actions(SPEC, "absolute").spec, "delta", scale_rotation=1e-5).spec.action_names
    assert small[3] == "eef_delta_axis_angle.x [1e-05 rad]"
    assert find_pose_columns(small)[1].scale[0] == 1e-5


UMI = (*(f"robot0_eef_pos.{axis} [m]" for axis in "xyz"), *(f"robot0_eef_rot_axis_angle.{a} [rad]" for a in "xyz"))


def test_umis_rotations_are_converted_and_keep_their_name() -> None:
    spec = dataclasses.replace(
        MUJOCO, controller="unknown", action_names=(*UMI, "robot0_gripper_width.0 [m]"), state_names=UMI
    )
    edit = convert_actions(spec, "delta")
    assert [name.split(".")[0] for name in edit.spec.action_names[2:6]] == [
        "robot0_eef_delta_pos",
        *["robot0_eef_delta_rot_axis_angle"] * 3,
    ]
    assert edit.spec.controller == "unknown"
    assert edit.notes[1] == "unchanged: robot0_gripper_width"
    assert "robot0_eef_rot_axis_angle [rad] -> robot0_eef_delta_rot_axis_angle [0.5 rad]" in edit.notes[0]
    rng = np.random.default_rng(0)
    before = dataclasses.replace(
        episode(), state=rng.normal(size=(7, 6)).astype(np.float32), actions=rng.normal(size=(7, 7)).astype(np.float32)
    )
    back = convert_actions(edit.spec, "absolute")
    assert back.spec.action_names == spec.action_names
    np.testing.assert_allclose(back.change(edit.change(before)).actions[:, :3], before.actions[:, :3], atol=1e-5)
    # A form alone leaves the positions bit for bit.
    turned = convert_actions(spec, rotation="rot6d").change(before)
    assert np.array_equal(turned.actions[:, [0, 1, 2, 9]], before.actions[:, [0, 1, 2, 6]])
    still = edit.change(dataclasses.replace(before, actions=np.concatenate([before.state, before.actions[:, 6:]], 1)))
    assert is_motionless(edit.spec, [still.actions])
    assert not is_motionless(edit.spec, [edit.change(before).actions])


@pytest.mark.parametrize(
    ("name", "poses", "rotations"),
    [
        ("eef_rot.x [rad]", True, True),
        ("robot_eef_pose.3", True, False),
        ("tcp.rotvec.x", True, True),
        ("euler.roll [rad]", True, True),
        ("roll", True, True),
        ("pos.x [m]", True, False),
        ("quat0", True, True),
        ("left_forearm_roll [rad]", False, False),
        ("left_wrist_angle [rad]", False, False),
        ("joint_pos.0 [rad]", False, False),
        ("robot0_eef_vel_lin.x [m/s]", False, False),
        ("robot0_gripper_qpos.0 [m]", False, False),
        ("gripper_pos", False, False),
        ("action.3", False, False),
    ],
)
def test_what_looks_like_a_pose(name: str, poses: bool, rotations: bool) -> None:
    assert bool(find_possible_poses([name])) == poses
    assert bool(find_possible_poses([name], rotations_only=True)) == rotations


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ({}, {"to": "delta"}, "already have this form"),
        ({}, {"to": "absolut"}, "Did you mean 'absolute'"),
        ({}, {"rotation": "quaternion"}, "Unknown form of rotations"),
        ({}, {"to": "absolute", "scale_position": 0}, "must be above 0"),
        ({"action_names": ("u", "v")}, {"to": "absolute"}, "names no action eef_pos.x"),
        ({"state_names": ("x [m]",)}, {"to": "absolute"}, "lacks the pose of the gripper"),
        (
            {"state_names": (*POSE[:3], *(f"eef_quat.{axis} [1]" for axis in "xyzw"))},
            {"to": "absolute"},
            "eef_rot6d, eef_quat_site.*import with state=eef_pos,eef_quat_site",
        ),
        (
            {"action_names": ("a", *"bcdefg")},
            {"to": "delta"},
            r"action_names='eef_pos.x \[m\],.*_angle.z \[rad\],gripper'",
        ),
        ({"state_names": ("x [m]",) * 7}, {"to": "absolute"}, r"state_names='eef_pos.x \[m\],.*,gripper'"),
        ({"action_names": DELTAS[:3]}, {"rotation": "rot6d"}, "none of the actions is known to be a rotation"),
        (
            {"action_names": (*DELTAS[:3], "eef_rot.x [rad]", "eef_rot.y [rad]", "gripper")},
            {"to": "absolute"},
            r"look like a pose.*: eef_rot.x \[rad\], eef_rot.y \[rad\]\. ",
        ),
        ({"action_names": ("eef_pos.x [mm]", "eef_pos.y [mm]", "eef_pos.z [mm]")}, {"to": "delta"}, "must be in m"),
        (
            {"action_names": tuple(f"eef_quat.{axis}" for axis in "wxyz")},
            {"rotation": "rot6d"},
            r"are not eef_quat.x, .y, .z, .w. \(w, x, y, z is named eef_quat_wxyz.\)",
        ),
        ({"controller": "OSC_POSE absolute in the base's frame"}, {"to": "absolute"}, "not poses in the world"),
    ],
)
def test_what_cannot_be_meant_is_refused(change: dict, arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        convert_actions(dataclasses.replace(SPEC, **change), **arguments)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    store = DemoStore.create(tmp_path / "s", SPEC)
    for seed in range(3):
        store.append(episode(seed))

    def run(words: str) -> int:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["pixio-robot", "data", "actions", *words.split()])
        return main()

    assert run("s out=absolute to=absolute rotation=rot6d") == 0
    assert "unchanged: gripper" in capsys.readouterr().out
    assert run("absolute out=back to=delta rotation=axis_angle") == 0
    back = DemoStore.open(tmp_path / "back")
    assert verify_store(back, action_range=(-1.001, 1.001)) == []
    assert back.spec == SPEC
    np.testing.assert_allclose(back.actions(2), store.actions(2), atol=2e-5)
    assert run("s out=x") == 2
    assert "needs to=delta|absolute, rotation=FORM, or both" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_deltas_that_lead_nowhere_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = DemoStore.create(tmp_path / "s", dataclasses.replace(MUJOCO, action_names=UMI, state_names=UMI))
    pose = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    store.append(dataclasses.replace(episode(n=5), state=pose, actions=pose))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pixio-robot", "data", "actions", "s", "out=x", "to=delta"])
    assert main() == 0
    assert "warning: every delta is 0" in capsys.readouterr().out


def test_deltas_that_a_controller_would_clip_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = dataclasses.replace(MUJOCO, action_names=(*POSE, "gripper"), controller="OSC_POSE absolute")
    before = episode(n=8)
    # 3 cm per step, but 20 cm in two of eight; the rotations stay.
    actions = np.concatenate([before.state[:, :9], 5 * np.ones((8, 1), np.float32)], 1)
    actions[:, 1] -= 0.03
    actions[[2, 5], 0] += 0.2
    store = DemoStore.create(tmp_path / "s", spec)
    store.append(dataclasses.replace(before, actions=actions))
    monkeypatch.chdir(tmp_path)

    def told(words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["pixio-robot", "data", "actions", "s", *words.split()])
        assert main() == 0
        return capsys.readouterr().out

    far = told("out=x to=delta rotation=axis_angle")
    assert "in 2 of 8 steps (25.0%), deltas lie beyond -1 to 1" in far
    assert "fit all: scale_position=0.2\n" in far
    assert "scale_rotation" not in far
    assert "warning" not in told("out=y to=delta rotation=axis_angle scale_position=0.2")
    # Rotations have a scale in one form only.
    actions[3, 3:9] = before.state[4, 3:9]
    turned = DemoStore.create(tmp_path / "t", spec)
    turned.append(dataclasses.replace(before, actions=actions))
    (both,) = warn_about_clipped_deltas(
        spec,
        convert_actions(spec, "delta", "axis_angle").spec,
        [convert_actions(spec, "delta", "axis_angle").change(turned.episode(0)).actions],
    )
    assert "in 3 of 8 steps" in both
    assert "scale_position=0.2 scale_rotation=" in both
    plain = convert_actions(spec, "delta", scale_position=0.2)
    assert warn_about_clipped_deltas(spec, plain.spec, [plain.change(turned.episode(0)).actions]) == ()
