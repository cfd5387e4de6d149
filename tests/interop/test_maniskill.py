"""ManiSkill's trajectories, written here as its RecordEpisode writes them."""

import functools
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from demo_data import import_store

from pixio_robot.cli.main import dispatch
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.errors import UserError
from pixio_robot.files import write_json
from pixio_robot.interop import maniskill
from pixio_robot.interop.demo_formats import detect_format, load_export_format
from pixio_robot.interop.maniskill import ImportConfig, import_demos
from pixio_robot.types import UNKNOWN

LENGTHS = {0: 4, 1: 3, 10: 5}
CAMERA = "sensor_data_base_camera_rgb"
MODE = "pd_ee_delta_pose"


def observations(number: int, rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    return {
        "agent/qpos": rng.normal(size=(rows, 9)).astype(np.float32),
        "extra/is_grasped": rng.random(rows) > 0.5,
        "sensor_data/base_camera/rgb": rng.integers(0, 256, (rows, 16, 24, 3)).astype(np.uint8),
        "sensor_data/base_camera/depth": rng.integers(0, 900, (rows, 16, 24, 1)).astype(np.int16),
        "sensor_param/base_camera/intrinsic_cv": rng.normal(size=(rows, 3, 3)).astype(np.float32),
    }


def actions(number: int) -> np.ndarray:
    return np.random.default_rng([number, 1]).uniform(-1, 1, (LENGTHS[number], 7)).astype(np.float32)


def write(folder: Path, **kwargs: Any) -> Path:
    """The two files; the second trajectory failed."""
    path = folder / "trajectory.rgb.pd_ee_delta_pose.physx_cpu.h5"
    episodes = [
        {"episode_id": number, "episode_seed": 100 + number, "control_mode": MODE, "elapsed_steps": length}
        | {"reset_kwargs": {"seed": 100 + number}, "success": number != 1}
        for number, length in LENGTHS.items()
    ]
    env_info = {"env_id": "PickCube-v1", "max_episode_steps": 50, "env_kwargs": {"obs_mode": "rgb", **kwargs}}
    write_json(path.with_suffix(".json"), {"env_info": env_info, "commit_info": None, "episodes": episodes})
    with h5py.File(path, "w") as file:
        for number, length in LENGTHS.items():
            group = file.create_group(f"traj_{number}", track_order=True)
            for name, values in observations(number, length + 1).items():
                group[f"obs/{name}"] = values
            group["actions"] = actions(number)
            for name in ("terminated", "truncated", "success"):
                group[name] = np.zeros(length, bool)
            group["env_states/actors/cube"] = np.zeros((length + 1, 13), np.float32)
    return path


imported = functools.partial(import_store, maniskill)


def test_each_action_comes_with_what_was_seen_before_it(tmp_path: Path) -> None:
    store = imported(write(tmp_path), tmp_path / "out")
    assert list(store.lengths) == list(LENGTHS.values())
    for episode, number in zip(store, LENGTHS, strict=True):
        seen = observations(number, LENGTHS[number] + 1)
        np.testing.assert_array_equal(episode.actions, actions(number))
        np.testing.assert_array_equal(episode.images[CAMERA], seen["sensor_data/base_camera/rgb"][:-1])
        state = np.column_stack([seen["agent/qpos"], seen["extra/is_grasped"]])[:-1]
        np.testing.assert_array_equal(episode.state, state)
        assert (episode.success, episode.seed, episode.info["trajectory"]) == (number != 1, 100 + number, number)
        assert not episode.rewards.any()


def test_names_are_those_of_the_environment(tmp_path: Path) -> None:
    spec = imported(write(tmp_path, robot_uids="xarm6_robotiq"), tmp_path / "out").spec
    assert (spec.task, spec.robot, spec.controller) == ("gymnasium:mani_skill.envs:PickCube-v1", "xarm6_robotiq", MODE)
    assert spec.control_hz == 20
    assert (spec.cameras[CAMERA].height, spec.cameras[CAMERA].width) == (16, 24)
    assert spec.state_names == (*(f"agent_qpos.{index} [?]" for index in range(9)), "extra_is_grasped.0 [?]")
    assert spec.action_names == tuple(f"action.{index} [?]" for index in range(7))


def test_settings_choose_and_losses_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = write(tmp_path), tmp_path / "out"
    assert detect_format(path).NAME == "maniskill"
    assert (
        dispatch(["data", "import", str(path), f"out={out}", "state=agent_qpos", "control_hz=10", "robot=panda"]) == 0
    )
    said = capsys.readouterr().out
    assert "left out: extra_is_grasped, sensor_data_base_camera_depth, sensor_param_base_camera_intrinsic_cv" in said
    assert "no rewards" in said
    assert "control rate" not in said
    store = DemoStore.open(out)
    assert (store.spec.state_dim, store.spec.control_hz, store.spec.robot) == (9, 10, "panda")
    with pytest.raises(UserError, match=r"cameras= of .*'front'"):
        import_demos(path, tmp_path / "other", ImportConfig(cameras=["front"]))
    with pytest.raises(UserError, match="import-only"):
        load_export_format("maniskill")


def test_rewards_success_at_the_last_step_and_observations_in_one_array(tmp_path: Path) -> None:
    path = write(tmp_path)
    description = path.with_suffix(".json")
    description.write_text(description.read_text().replace('"success"', '"not said"'))
    with h5py.File(path, "a") as file:
        for number, length in LENGTHS.items():
            group = file[f"traj_{number}"]
            del group["obs"]
            group["obs"] = np.full((length + 1, 42), number, np.float32)
            group["rewards"] = np.arange(length, dtype=np.float32)
            group["success"][-1] = number == 10
    store = imported(path, tmp_path / "out")
    assert store.spec.state_names[-1] == "observation.41 [?]"
    assert not store.spec.cameras
    assert [episode.success for episode in store] == [False, False, True]
    assert list(list(store)[2].rewards) == [0, 1, 2, 3, 4]
    assert store.spec.robot == UNKNOWN


def break_file(path: Path, how: str) -> None:
    description = path.with_suffix(".json")
    if how == "alone":
        description.unlink()
    elif how == "other":
        description.write_text("[1]")
    elif how == "modes":
        description.write_text(description.read_text().replace(MODE, "pd_joint_pos", 1))
    else:
        with h5py.File(path, "a") as file:
            if how == "states only":
                del file["traj_0/obs"]
            elif how == "fewer":
                del file["traj_10"]
            elif how == "short":
                del file["traj_1/obs/agent/qpos"]
                file["traj_1/obs/agent/qpos"] = np.zeros((3, 9), np.float32)
            elif how == "other shape":
                del file["traj_1/obs/agent/qpos"]
                file["traj_1/obs/agent/qpos"] = np.zeros((4, 9, 2), np.float32)
            elif how == "empty":
                seen = {f"obs/{name}": values for name, values in observations(1, 1).items()}
                for name, values in (seen | {"actions": actions(1)[:0]}).items():
                    del file[f"traj_1/{name}"]
                    file[f"traj_1/{name}"] = values


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("alone", "does not exist: ManiSkill writes it beside"),
        ("other", "does not describe trajectories of ManiSkill"),
        ("modes", "several control modes: pd_ee_delta_pose, pd_joint_pos"),
        ("states only", r"no observations.*replay_trajectory --traj-path trajectory.*\.h5 --save-traj -o rgb"),
        ("fewer", "no traj_10, which its .json file lists"),
        ("short", "3 rows of agent_qpos and 3 actions"),
        ("other shape", r"Episode 1 cannot be written.*state has shape \(3, 19\)"),
        ("empty", "Episode 1 cannot be written.*at least one step"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_and_nothing_is_written(tmp_path: Path, how: str, message: str) -> None:
    path = write(tmp_path)
    break_file(path, how)
    with pytest.raises(UserError, match=message):
        import_demos(path, tmp_path / "out", ImportConfig())
    assert not (tmp_path / "out").exists()
