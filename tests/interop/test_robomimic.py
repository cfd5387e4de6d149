"""robomimic files: both ways without a simulator, element by element, and what is refused."""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from demo_data import SPEC, import_store, make_episode, make_store, same

from pixio_robot.data.demos.editing.rewrite import TASK, filter_episodes
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.errors import UserError
from pixio_robot.interop import robomimic
from pixio_robot.interop.demo_formats import detect_format
from pixio_robot.interop.hdf5 import read_dataset
from pixio_robot.interop.robomimic import ExportConfig, ImportConfig, export_demos, import_demos, recognises
from pixio_robot.interop.robomimic.env_metadata import action_names, controller_name
from pixio_robot.interop.robomimic.hdf5_file import RobomimicFile
from pixio_robot.types import CameraSpec

ARM = {"type": "OSC_POSE", "output_max": [0.05, 0.05, 0.05, 0.5, 0.5, 0.5], "control_delta": True}
ENV_ARGS: dict[str, Any] = {
    "env_name": "Square",
    "type": 1,
    "env_version": "1.4.1",
    "env_kwargs": {"robots": ["Panda"], "control_freq": 20, "controller_configs": ARM},
}
LENGTHS = {f"demo_{number}": 3 + number % 3 for number in (0, 1, 2, 3, 10)}
CAMERA = "agentview_image"


def test_deltas_of_two_arms_that_face_each_other_are_not_of_the_world() -> None:
    arm = ARM | {"input_ref_frame": "base"}

    def named(robots: list[str]) -> str:
        kwargs = {"robots": robots, "controller_configs": [arm] * len(robots)}
        return controller_name(ENV_ARGS | {"env_kwargs": kwargs}, "actions")

    assert named(["Panda"]) == "OSC_POSE delta"
    assert named(["Panda", "Panda"]) == "OSC_POSE delta in the base's frame"


def test_a_configuration_for_arms_that_the_robot_has_not_is_of_those_it_has() -> None:
    arm = ARM | {"input_ref_frame": "base"}
    general = {"type": "BASIC", "body_parts": {"right": arm, "left": arm, "torso": {"type": "JOINT_POSITION"}}}

    def meant(robots: list[str], configs: Any, width: int) -> tuple[str, list[str], bool]:
        args = ENV_ARGS | {"env_kwargs": {"robots": robots, "controller_configs": configs}}
        return controller_name(args, "actions"), *action_names(args, "actions", width)

    one = meant(["Panda"], arm, 7)
    assert one[0] == "OSC_POSE delta"
    assert one[2]
    assert meant(["Panda"], general, 7) == one
    assert meant(["Panda"], {"body_parts": {"arms": general["body_parts"]}}, 7) == one
    name, names, known = meant(["Baxter"], general, 14)
    assert (name, known) == ("OSC_POSE delta in the base's frame", True)
    assert names == [f"arm{number}_{column}" for number in (0, 1) for column in one[1]]
    assert meant(["Panda", "Panda"], general, 14) == (name, names, True)


def write_file(path: Path, change: Callable[[h5py.File], None] = lambda file: None) -> Path:
    """An image file as robomimic's scripts leave it, then changed."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps(ENV_ARGS)
        data.attrs["total"] = sum(LENGTHS.values())
        for number, (name, length) in enumerate(LENGTHS.items()):
            rng = np.random.default_rng(number)
            group = data.create_group(name)
            group.attrs["num_samples"] = length
            group.attrs["model_file"] = f"<mujoco model='{name}'/>"
            group["actions"] = rng.uniform(-1, 1, (length, 7))
            group["states"] = rng.normal(size=(length, 32))
            # Every second demonstration is solved.
            group["rewards"] = np.eye(length)[-1] * (number % 2)
            group["dones"] = np.eye(length, dtype=np.int64)[-1]
            for obs in ("obs", "next_obs"):
                group[f"{obs}/robot0_eef_pos"] = rng.normal(size=(length, 3))
                group[f"{obs}/robot0_eef_quat"] = rng.normal(size=(length, 4)).astype(np.float32)
                group[f"{obs}/robot0_gripper_qpos"] = rng.normal(size=(length, 2))
                group[f"{obs}/object"] = rng.normal(size=(length, 14))
                group[f"{obs}/{CAMERA}"] = rng.integers(0, 256, (length, 6, 8, 3), np.uint8)
        for mask, members in (("train", ["demo_10", "demo_2", "demo_0"]), ("valid", ["demo_1"])):
            file[f"mask/{mask}"] = np.array(members, "S")
        change(file)
    return path


imported = functools.partial(import_store, robomimic)


def test_every_number_arrives_in_numeric_order(tmp_path: Path) -> None:
    source = write_file(tmp_path / "f.hdf5")
    outcome = import_demos(source, tmp_path / "s", ImportConfig())
    store = DemoStore.open(tmp_path / "s")
    assert (outcome.episodes, outcome.frames) == (5, sum(LENGTHS.values()))
    assert [store.info(number)["demo"] for number in range(5)] == list(LENGTHS)
    with h5py.File(source) as file:
        for number, name in enumerate(LENGTHS):
            group: Any = file["data"][name]  # type: ignore[index]
            obs, episode = group["obs"], store.episode(number)
            np.testing.assert_array_equal(episode.images["agentview"], obs[CAMERA][()])
            parts = [obs[f"robot0_{key}"][()] for key in ("eef_pos", "eef_quat", "gripper_qpos")]
            np.testing.assert_array_equal(episode.state, np.concatenate(parts, 1).astype(np.float32))
            np.testing.assert_array_equal(episode.actions, group["actions"][()].astype(np.float32))
            np.testing.assert_array_equal(episode.rewards, group["rewards"][()].astype(np.float32))
            assert episode.success == bool(number % 2)
            assert episode.seed == int(name[5:])
    spec = store.spec
    assert (spec.task, spec.robot, spec.control_hz, spec.controller) == ("Square", "Panda", 20, "OSC_POSE delta")
    assert spec.state_names[:4] == ("robot0_eef_pos.x [m]", *spec.state_names[1:3], "robot0_eef_quat.x [1]")
    assert spec.action_names[3] == "eef_delta_axis_angle.x [0.5 rad]"
    # What converting the actions later needs of the state, which a store has no more.
    needed = "robot0_eef_pos,robot0_eef_quat_site,robot0_gripper_qpos"
    assert any(note.endswith(f"import with state={needed}") for note in outcome.notes)
    assert spec.cameras == {"agentview": CameraSpec(height=6, width=8)}
    notes = "\n".join(outcome.notes)
    for lost in ("left out of the observations: object", "rounded to float32: actions, robot0_eef_pos", "model_file"):
        assert lost in notes


@pytest.mark.parametrize("renders", [True, False])
def test_a_file_without_images_says_so_and_how_to_have_some(tmp_path: Path, renders: bool) -> None:
    def without(file: h5py.File) -> None:
        for name in LENGTHS:
            del file[f"data/{name}/obs/{CAMERA}"], file[f"data/{name}/next_obs/{CAMERA}"]
            if not renders:
                del file[f"data/{name}/states"]

    outcome = import_demos(write_file(tmp_path / "f.hdf5", without), tmp_path / "s", ImportConfig())
    (said,) = (note for note in outcome.notes if "the store has no camera" in note)
    assert ("cameras=" in said) == renders


def test_masks_choose_and_are_kept(tmp_path: Path) -> None:
    source = write_file(tmp_path / "f.hdf5")
    store = imported(source, tmp_path / "s", mask="train")
    assert [store.info(number)["demo"] for number in range(3)] == ["demo_0", "demo_2", "demo_10"]
    assert store.info(0)["mask.train"] is True
    assert store.info(0)["mask.valid"] is False
    everything = imported(source, tmp_path / "all")
    assert filter_episodes(everything, "info.mask.train == true").count == 3
    assert filter_episodes(everything, "info.demo == demo_10").count == 1
    export_demos(tmp_path / "s", tmp_path / "g.hdf5", ExportConfig())
    with RobomimicFile(tmp_path / "g.hdf5") as file:
        assert file.demos == ["demo_0", "demo_2", "demo_10"]
        assert file.masks == {"train": ["demo_0", "demo_2", "demo_10"]}
        assert file.env_args == ENV_ARGS
    with pytest.raises(UserError, match="Did you mean 'train'"):
        imported(source, tmp_path / "t", mask="tran")


def _poses(file: h5py.File, demos: Iterable[str] = LENGTHS) -> None:
    """Absolute poses in `actions`, as diffusion_policy's robomimic_dataset_conversion.py leaves them: env_args stay."""
    for demo in demos:
        length = LENGTHS[demo]
        del file[f"data/{demo}/actions"]
        file[f"data/{demo}/actions"] = np.tile([0.1, -0.2, 0.9, 3.1, 0.0, 0.1, -1.0], (length, 1))


@pytest.mark.parametrize("demos", [list(LENGTHS), ["demo_10"]], ids=["all", "only the last"])
def test_poses_that_env_args_call_deltas_are_refused(tmp_path: Path, demos: list[str]) -> None:
    source = write_file(tmp_path / "image_abs.hdf5", lambda file: _poses(file, demos))
    said = rf"image_abs\.hdf5: env_args describe .* actions of {demos[0]} .* magnitude 3\.1 .* absolute=true"
    with pytest.raises(UserError, match=said):
        import_demos(source, tmp_path / "s", ImportConfig())
    assert [path.name for path in tmp_path.iterdir()] == ["image_abs.hdf5"]


def test_poses_that_env_args_call_deltas_are_read_as_told(tmp_path: Path) -> None:
    source = write_file(tmp_path / "image_abs.hdf5", _poses)
    store = imported(source, tmp_path / "s", absolute=True)
    assert store.spec.controller == "OSC_POSE absolute"
    assert store.spec.action_names[2:4] == ("eef_pos.z [m]", "eef_axis_angle.x [rad]")
    np.testing.assert_array_equal(store.actions(0)[:, 2], np.float32(0.9))
    # env_args still identify the environment.
    assert store.info(0)["env_args"] == ENV_ARGS
    outcome = export_demos(tmp_path / "s", tmp_path / "back.hdf5", ExportConfig())
    assert any("env_args describe deltas" in note for note in outcome.notes)
    assert imported(tmp_path / "back.hdf5", tmp_path / "again").spec == store.spec
    for settings in ({"absolute": False}, {"action_names": [f"a{number}" for number in range(7)]}):
        spec = imported(source, tmp_path / next(iter(settings)), **settings).spec
        assert spec.controller == "OSC_POSE delta"


def test_rounding_and_grippers_are_no_poses(tmp_path: Path) -> None:
    def change(file: h5py.File) -> None:
        file["data/demo_0/actions"][0] = [1 + 1e-6, 0, 0, 0, 0, 0, 5]  # type: ignore[index]

    assert len(imported(write_file(tmp_path / "f.hdf5", change), tmp_path / "s")) == 5


def test_a_shaped_reward_is_no_success(tmp_path: Path) -> None:
    def change(file: h5py.File) -> None:
        for number, name in enumerate(LENGTHS):
            file[f"data/{name}/rewards"][:] += 0.3 if number % 2 == 0 else 0  # type: ignore[index, operator]

    assert imported(write_file(tmp_path / "f.hdf5", change), tmp_path / "s").successes == [False, True] * 2 + [False]


@pytest.mark.parametrize("scale", [0.2, 10.0, 1.0, None])
def test_success_is_a_reward_as_large_as_robosuite_scales_it(tmp_path: Path, scale: float | None) -> None:
    def change(file: h5py.File) -> None:
        kwargs = ENV_ARGS["env_kwargs"] | {"reward_scale": scale, "reward_shaping": True}
        file["data"].attrs["env_args"] = json.dumps(ENV_ARGS | {"env_kwargs": kwargs})
        for number, name in enumerate(LENGTHS):
            file[f"data/{name}/rewards"][-1] = (scale or 1) * (1 if number % 2 else 0.5)  # type: ignore[index]

    assert imported(write_file(tmp_path / "f.hdf5", change), tmp_path / "s").successes == [False, True] * 2 + [False]


def test_the_reach_of_turns_is_the_controllers_own() -> None:
    for largest, expected in (
        ([0.05, 0.05, 0.1, 0.2, 0.3, 0.4], ["0.05 m", "0.05 m", "0.1 m", "0.2 rad", "0.3 rad", "0.4 rad"]),
        ([0.02] * 3, ["0.02 m"] * 3 + ["0.5 rad"] * 3),
        (0.03, ["0.03 m"] * 3 + ["0.03 rad"] * 3),
    ):
        args = ENV_ARGS | {"env_kwargs": {"robots": ["Panda"], "controller_configs": ARM | {"output_max": largest}}}
        names, known = action_names(args, "actions", 7)
        assert known
        assert [name.split("[")[1][:-1] for name in names[:6]] == expected


def test_absolute_joints_have_names() -> None:
    arm = {"type": "JOINT_POSITION", "input_type": "absolute"}
    kwargs = {"robots": ["Panda"], "controller_configs": {"type": "BASIC", "body_parts": {"right": arm}}}
    env_args = ENV_ARGS | {"env_kwargs": kwargs}
    names = [*(f"joint{joint} [rad]" for joint in range(1, 8)), "gripper [-1 opens, 1 closes]"]
    assert action_names(env_args, "actions", 8) == (names, True)
    assert controller_name(env_args, "actions") == "JOINT_POSITION absolute"


def test_a_file_of_isaac_lab_is_read(tmp_path: Path) -> None:
    """States are groups, the outcome and the seed are attributes, and there are no rewards."""

    def isaac(file: h5py.File) -> None:
        data: Any = file["data"]
        data.attrs["env_args"] = json.dumps({"env_name": "Isaac-Stack-Cube-Franka-IK-Rel-v0", "type": 2})
        del file["mask"]
        for number, (demo, length) in enumerate(LENGTHS.items()):
            group = data[demo]
            for key in ("states", "rewards", "dones", "next_obs"):
                del group[key]
            del group.attrs["model_file"]
            group["states/articulation/robot/joint_position"] = np.zeros((length, 9))
            group["initial_state/articulation/robot/joint_position"] = np.zeros((1, 9))
            group["obs/datagen_info/eef_pose/franka"] = np.zeros((length, 4, 4))
            group.attrs["success"], group.attrs["seed"] = np.bool_(number > 0), np.int64(7 + number)

    source = write_file(tmp_path / "f.hdf5", isaac)
    config: dict[str, Any] = {"control_hz": 20.0, "state": ["robot0_eef_pos", "robot0_eef_quat"]}
    outcome = import_demos(source, tmp_path / "s", ImportConfig(**config))
    store = DemoStore.open(tmp_path / "s")
    assert (store.successes, store.seeds) == ([False, True, True, True, True], [7, 8, 9, 10, 11])
    assert (store.spec.task, store.spec.simulator) == ("Isaac-Stack-Cube-Franka-IK-Rel-v0", "isaaclab")
    notes = "\n".join(outcome.notes)
    assert "as groups of arrays: datagen_info" in notes
    assert "not kept in the store: initial_state, states" in notes
    # Its quaternions were w, x, y, z until 2026.
    assert store.spec.state_names[3:] == tuple(f"robot0_eef_quat.{column}" for column in range(4))
    assert "robot0_eef_quat: w, x, y, z or x, y, z, w" in notes
    assert imported(source, tmp_path / "t", success="all", **config).successes == [True] * 5
    with pytest.raises(UserError, match="Did you mean 'robot0_eef_pos'"):
        imported(source, tmp_path / "u", **config | {"state": ["robot0_eef_po"]})


def test_masks_may_name_demonstrations_that_were_left_out(tmp_path: Path) -> None:
    """As in what dataset_states_to_obs.py writes with --n."""
    source = write_file(tmp_path / "f.hdf5", _without("data/demo_1", "data/demo_10"))
    outcome = import_demos(source, tmp_path / "s", ImportConfig(mask="train"))
    assert outcome.episodes == 2
    assert "the mask train names demonstrations that are not in the file: 1" in outcome.notes
    with pytest.raises(UserError, match=r"mask valid of .* names only demonstrations that are not in"):
        import_demos(source, tmp_path / "t", ImportConfig(mask="valid"))


def _spoken(*languages: str) -> Callable[[h5py.File], None]:
    """RoboCasa's notes about each episode."""

    def change(file: h5py.File) -> None:
        for demo, lang in zip(LENGTHS, languages, strict=True):
            meta = {"layout_id": 3} | ({"lang": lang} if lang else {})
            file[f"data/{demo}"].attrs["ep_meta"] = json.dumps(meta)

    return change


def test_instructions_become_tasks(tmp_path: Path) -> None:
    source = write_file(tmp_path / "f.hdf5", _spoken("pick the apple", "pick the mug", "pick the apple", "", "pour"))
    outcome = import_demos(source, tmp_path / "s", ImportConfig())
    store = DemoStore.open(tmp_path / "s")
    tasks = ["pick the apple", "pick the mug", "pick the apple", "Square", "pour"]
    assert [store.info(number)[TASK] for number in range(5)] == tasks
    assert store.spec.task == "4 tasks of f.hdf5"
    assert any("4 tasks: each episode's info" in note for note in outcome.notes)
    assert any("ep_meta.layout_id" in note for note in outcome.notes)
    assert store.info(0)["env_args"]["env_name"] == "Square"
    assert imported(source, tmp_path / "t", mask="valid").spec.task == "pick the mug"
    named = imported(source, tmp_path / "u", task="kitchen")
    assert named.spec.task == "kitchen"
    assert TASK not in named.info(0)
    same_for_all = imported(write_file(tmp_path / "g.hdf5", _spoken(*["pour"] * 5)), tmp_path / "v")
    assert same_for_all.spec.task == "pour"
    assert TASK not in same_for_all.info(0)


def test_out_and_back_with_the_original_is_the_same_file(tmp_path: Path) -> None:
    source = write_file(tmp_path / "f.hdf5")
    keys = ["robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos", "object"]
    imported(source, tmp_path / "s", state=keys)
    config = ExportConfig(original=str(source), compress=True)
    outcome = export_demos(tmp_path / "s", tmp_path / "g.hdf5", config)
    assert not any("states" in note for note in outcome.notes)
    with h5py.File(source) as before, h5py.File(tmp_path / "g.hdf5") as after:
        for name in ("env_args", "total"):
            assert json.loads(str(after["data"].attrs[name])) == json.loads(str(before["data"].attrs[name]))
        for demo in LENGTHS:
            old: Any = before["data"][demo]  # type: ignore[index]
            new: Any = after["data"][demo]  # type: ignore[index]
            assert new.attrs["model_file"] == old.attrs["model_file"]
            assert new.attrs["num_samples"] == old.attrs["num_samples"]
            for key in ("states", "dones", f"obs/{CAMERA}"):
                np.testing.assert_array_equal(new[key][()], old[key][()])
                assert new[key].dtype == old[key].dtype
            for key in ("actions", "rewards", *(f"obs/{key}" for key in keys)):
                np.testing.assert_array_equal(new[key][()], old[key][()].astype(np.float32))
        for mask in ("train", "valid"):
            members = [set(file[f"mask/{mask}"][()].tolist()) for file in (before, after)]  # type: ignore[index]
            assert members[0] == members[1]


def test_a_store_survives_the_round_trip(tmp_path: Path) -> None:
    make_store(tmp_path / "s")
    outcome = export_demos(tmp_path / "s", tmp_path / "f.hdf5", ExportConfig(next_obs=True))
    assert recognises(tmp_path / "f.hdf5")
    store = imported(tmp_path / "f.hdf5", tmp_path / "t")
    assert store.spec == SPEC
    assert all(same(store.episode(seed), make_episode(seed)) for seed in range(4))
    assert any("repeats its last observation" in note for note in outcome.notes)
    with h5py.File(tmp_path / "f.hdf5") as file:
        group: Any = file["data"]["demo_0"]  # type: ignore[index]
        assert group.attrs["num_samples"] == len(make_episode(0))
        for key in ("x", "front_image"):
            np.testing.assert_array_equal(group["next_obs"][key][:-1], group["obs"][key][1:])
        assert json.loads(str(file["data"].attrs["env_args"]))["type"] == 2


def test_a_robosuite_store_says_how_robomimic_would_build_it(tmp_path: Path) -> None:
    spec = dataclasses.replace(
        SPEC,
        task="Lift",
        robot="Panda",
        simulator="robosuite",
        simulator_version="robosuite 1.5.1, mujoco 3.8.1",
        controller="OSC_POSE delta",
        state_names=("eef_pos.x [m]", "eef_pos.y [m]", "grip"),
    )
    store = DemoStore.create(tmp_path / "s", spec)
    store.append(make_episode(0))
    export_demos(tmp_path / "s", tmp_path / "f.hdf5", ExportConfig())
    with RobomimicFile(tmp_path / "f.hdf5") as file:
        kwargs = file.env_args["env_kwargs"]
        assert (file.env_args["env_name"], file.env_args["env_version"]) == ("Lift", "1.5.1")
        assert kwargs["controller_configs"]["body_parts"]["right"]["input_type"] == "delta"
        assert (kwargs["robots"], kwargs["control_freq"]) == (["Panda"], 10.0)
        obs = file.demo("demo_0")["obs"]
        assert sorted(obs) == ["eef_pos", "front_image", "grip", "hand_image"]  # type: ignore[arg-type]


def test_settings_stand_above_the_file(tmp_path: Path) -> None:
    def absolute(file: h5py.File) -> None:
        for name, length in LENGTHS.items():
            file[f"data/{name}/actions_abs"] = np.ones((length, 7))

    source = write_file(tmp_path / "f.hdf5", absolute)
    store = imported(source, tmp_path / "s", actions="actions_abs", success="all", control_hz=5.0, licence="MIT")
    assert store.spec.controller == "OSC_POSE absolute"
    assert store.spec.action_names[:4] == ("eef_pos.x [m]", "eef_pos.y [m]", "eef_pos.z [m]", "eef_axis_angle.x [rad]")
    assert (store.spec.control_hz, store.spec.licence, store.successes) == (5.0, "MIT", [True] * 5)
    store = imported(source, tmp_path / "t", state=["object"], state_names=[f"o{i}" for i in range(14)])
    assert store.spec.state_names[-1] == "o13"


def test_robosuites_own_recording_counts_as_one(tmp_path: Path) -> None:
    def recorder(file: h5py.File) -> None:
        attributes = file["data"].attrs
        del attributes["env_args"], attributes["total"]
        attributes["env"], attributes["repository_version"] = "Lift", "1.5.1"
        attributes["env_info"] = json.dumps({"env_name": "Lift", "robots": ["Panda"], "controller_configs": ARM})
        del file["mask"]

    with RobomimicFile(write_file(tmp_path / "f.hdf5", recorder)) as file:
        assert file.env_args["env_name"] == "Lift"
        assert file.env_args["env_kwargs"]["robots"] == ["Panda"]
    store = imported(tmp_path / "f.hdf5", tmp_path / "s")
    assert (store.spec.task, store.spec.control_hz) == ("Lift", 20.0)


def _without(*keys: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        for key in keys:
            del file[key]

    return change


def _cut(key: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        values = file[key][()]  # type: ignore[index]
        del file[key]
        file[key] = values[:-1]

    return change


def _attribute(key: str, value: Any) -> Callable[[h5py.File], None]:
    return lambda file: file["data"].attrs.__setitem__(key, value)


def _meta(text: str) -> Callable[[h5py.File], None]:
    return lambda file: file["data/demo_0"].attrs.__setitem__("ep_meta", text)


def _seed(seed: Any) -> Callable[[h5py.File], None]:
    return lambda file: file["data/demo_0"].attrs.__setitem__("seed", seed)


ABSOLUTE = json.dumps(
    ENV_ARGS | {"env_kwargs": ENV_ARGS["env_kwargs"] | {"controller_configs": ARM | {"control_delta": False}}}
)
GYM = json.dumps({"env_name": "Reach", "type": 2, "env_kwargs": {}})


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (_without("data"), {}, "has no group data"),
        (_without(*(f"data/{name}" for name in LENGTHS)), {}, "has no demo_0, demo_1"),
        (_without("data/demo_3/actions"), {}, "/data/demo_3 has no dataset actions"),
        (_without("data/demo_3/rewards"), {}, "/data/demo_3 has no rewards to derive success from"),
        (_cut("data/demo_3/rewards"), {}, "demo_3 has 2 rewards, but 3 actions"),
        (_cut("data/demo_3/obs/robot0_eef_pos"), {}, "has 2 obs/robot0_eef_pos, but 3 actions"),
        (_cut(f"data/demo_3/obs/{CAMERA}"), {}, f"has 2 obs/{CAMERA}, but 3 actions"),
        (_attribute("env_args", "{"), {}, "env_args of data is not valid JSON"),
        (_attribute("env_args", GYM), {}, "set control_hz="),
        (_without("data/demo_1"), {"mask": "valid"}, "The mask valid .* names only demonstrations that are not"),
        (None, {"absolute": True, "actions": "actions_abs"}, "no dataset actions_abs"),
        (_attribute("env_args", ABSOLUTE), {"absolute": True}, "is OSC_POSE absolute: leave it out"),
        (_meta("{"), {}, "ep_meta of demo_0 is not valid JSON"),
        (_seed("x"), {}, "seed of /data/demo_0 is 'x', but must be a number"),
        (_without("data/demo_0/obs/robot0_eef_pos"), {}, "set state= to keys from object"),
        (None, {"state": ["robot0_eef"]}, "no simulator was provided"),
        (None, {"cameras": ["agentview", "frontview"]}, "none of frontview: set render=true"),
        (None, {"cameras": ["frontview"]}, "no simulator was provided"),
        (None, {"render": True}, "render=true needs cameras="),
        (None, {"action_names": ["a"]}, "7 columns, but 1 names"),
        (None, {"state_names": ["a"]}, r"1 names, but .* has 9 columns"),
        (None, {"actions": "actions_abs"}, "no dataset actions_abs"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_written(
    tmp_path: Path, change: Callable[[h5py.File], None] | None, settings: dict[str, Any], message: str
) -> None:
    source = write_file(tmp_path / "f.hdf5", change or (lambda file: None))
    with pytest.raises(UserError, match=message):
        import_demos(source, tmp_path / "s", ImportConfig(**settings))
    assert [path.name for path in tmp_path.iterdir()] == ["f.hdf5"]


def test_a_dataset_that_claims_terabytes_is_an_error(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.hdf5", "w") as file:
        file.create_dataset("actions", (2**40, 7), np.float64, chunks=(1, 7))  # takes no space
        with pytest.raises(UserError, match=r"f\.hdf5: /actions cannot be read .*allocate"):
            read_dataset(file["/"], "actions", tmp_path / "f.hdf5")


def test_exports_that_would_mislead_are_refused(tmp_path: Path) -> None:
    source = write_file(tmp_path / "f.hdf5")
    imported(source, tmp_path / "s")
    other = write_file(tmp_path / "o.hdf5", lambda file: file["data/demo_0/actions"].write_direct(np.zeros((3, 7))))
    with pytest.raises(UserError, match="the actions of demo_0 differ from those"):
        export_demos(tmp_path / "s", tmp_path / "g.hdf5", ExportConfig(original=str(other)))
    make_store(tmp_path / "own")
    with pytest.raises(UserError, match="has no demonstration ''"):
        export_demos(tmp_path / "own", tmp_path / "g.hdf5", ExportConfig(original=str(source)))
    with pytest.raises(UserError, match="already exists"):
        export_demos(tmp_path / "own", source, ExportConfig())
    assert not (tmp_path / "g.hdf5").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.hdf5", "o.hdf5", "own", "s"]


def test_other_files_are_not_taken_for_one(tmp_path: Path) -> None:
    (tmp_path / "text.hdf5").write_text("no")
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["x"] = 1
    assert not any(recognises(tmp_path / name) for name in ("text.hdf5", "other.hdf5", "none.hdf5", "."))
    broken = write_file(tmp_path / "f.hdf5", _without("data/demo_1/actions"))
    # Importing it says what is wrong.
    assert detect_format(broken).NAME == "robomimic"
    with pytest.raises(UserError, match="cannot be opened as HDF5"):
        RobomimicFile(tmp_path / "text.hdf5")
