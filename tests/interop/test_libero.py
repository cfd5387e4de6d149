"""LIBERO's files, written here as its create_dataset.py writes them (checked by hand against files that it wrote)."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from pixio_robot.cli.main import dispatch
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.demos.verify import verify_store
from pixio_robot.errors import UserError
from pixio_robot.interop.demo_formats import detect_format, load_export_format
from pixio_robot.interop.libero import ImportConfig, Pairing, import_demos, task_name

SOUP = "pick_up_the_soup_and_place_it_in_the_basket"
DRAWER = "KITCHEN_SCENE10_close_the_top_drawer_of_the_cabinet"
SIDE = 16
KEYS = {"ee_pos": 3, "ee_ori": 3, "gripper_states": 2, "joint_states": 7}
CONTROLLER = {
    "type": "OSC_POSE",
    "output_max": [0.05, 0.05, 0.05, 0.5, 0.5, 0.5],
    "control_delta": True,
    "impedance_mode": "fixed",
}


def rows(key: str, demo: int, length: int, width: int) -> np.ndarray:
    return np.random.default_rng([demo, *key.encode()]).normal(size=(length, width))


def picture(demo: int, step: int) -> np.ndarray:
    """Upright: red above, and below a colour that tells the step."""
    image = np.full((SIDE, SIDE, 3), (0, demo, step), np.uint8)
    image[: SIDE // 2] = (250, 0, 0)
    return image


def write_libero(path: Path, task: str = SOUP, lengths: tuple[int, ...] = (4, 5), convention: str = "opengl") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_name"] = "libero_floor_manipulation"
        data.attrs["problem_info"] = json.dumps({"language_instruction": "pick the soup", "domain_name": "robosuite"})
        data.attrs["bddl_file_name"] = f"/somewhere/bddl_files/libero_object/{task}.bddl"
        data.attrs["macros_image_convention"] = convention
        arguments = {"robots": ["Panda"], "controller_configs": CONTROLLER, "control_freq": 20}
        data.attrs["env_args"] = json.dumps({"type": 1, "env_name": "libero", "env_kwargs": arguments})
        for demo, length in enumerate(lengths):
            group = data.create_group(f"demo_{demo}")
            group.attrs["num_samples"] = length
            seen = group.create_group("obs")
            for key, width in KEYS.items():
                seen[key] = rows(key, demo, length, width)
            seen["ee_states"] = np.concatenate([seen["ee_pos"][()], seen["ee_ori"][()]], axis=1)
            for camera in ("agentview_rgb", "eye_in_hand_rgb"):
                seen[camera] = np.stack([picture(demo, step) for step in range(length)])[:, ::-1]
            group["actions"] = np.clip(rows("actions", demo, length, 7), -1, 1)
            group["states"] = rows("states", demo, length, 20)
            for key in ("rewards", "dones"):
                group[key] = (np.arange(length) == length - 1).astype(np.uint8)
    return path


def test_images_stand_upright_and_actions_follow_what_was_seen(tmp_path) -> None:
    source = write_libero(tmp_path / f"{SOUP}_demo.hdf5")
    result = import_demos(source, tmp_path / "demos", ImportConfig())
    store = DemoStore.open(tmp_path / "demos")
    assert (result.episodes, result.frames) == (2, 3 + 4)
    assert not verify_store(store)
    spec = store.spec
    assert spec.task == "pick up the soup and place it in the basket"
    assert (spec.robot, spec.controller, spec.control_hz) == ("Panda", "OSC_POSE delta", 20)
    assert list(spec.cameras) == ["agentview", "eye_in_hand"]
    assert spec.state_names[0] == "eef_pos.x [m]"
    assert spec.state_names[6:] == ("gripper.finger1 [m]", "gripper.finger2 [m]")
    assert spec.action_names[0] == "eef_delta_pos.x [0.05 m]"
    episode = store.episode(1)
    for step in range(4):
        assert np.array_equal(episode.images["agentview"][step], picture(1, step))
    assert np.array_equal(episode.state[:, :3], rows("ee_pos", 1, 5, 3)[:-1].astype(np.float32))
    assert np.array_equal(episode.actions, np.clip(rows("actions", 1, 5, 7), -1, 1)[1:].astype(np.float32))
    assert episode.rewards.tolist() == [0, 0, 0, 1]
    assert episode.success
    assert dict(episode.info) == {"file": source.name, "demo": "demo_1"}
    assert any("upside down" in note for note in result.notes)
    assert any("dones, states, joint_states" in note for note in result.notes)


def test_rows_as_stored(tmp_path) -> None:
    source = write_libero(tmp_path / "a_demo.hdf5")
    config = ImportConfig(pairing=Pairing.STORED, upright=False, state=["joint_states"], cameras=["eye_in_hand"])
    import_demos(source, tmp_path / "demos", config)
    episode = DemoStore.open(tmp_path / "demos").episode(0)
    assert len(episode.actions) == 4
    assert list(episode.images) == ["eye_in_hand"]
    assert np.array_equal(episode.images["eye_in_hand"][2], picture(0, 2)[::-1])
    assert np.array_equal(episode.state, rows("joint_states", 0, 4, 7).astype(np.float32))


def test_images_that_are_upright_already_stay(tmp_path) -> None:
    result = import_demos(
        write_libero(tmp_path / "a_demo.hdf5", convention="opencv"), tmp_path / "demos", ImportConfig()
    )
    stored = picture(0, 0)[::-1]  # the writer above always turns them
    assert np.array_equal(DemoStore.open(tmp_path / "demos").episode(0).images["agentview"][0], stored)
    assert not any("upside down" in note for note in result.notes)


def test_a_suite_is_a_store_of_several_tasks(tmp_path) -> None:
    for suite, task in (("libero_object", SOUP), ("libero_90", DRAWER)):
        write_libero(tmp_path / "datasets" / suite / f"{task}_demo.hdf5", task)
    assert detect_format(tmp_path / "datasets").NAME == "libero"
    assert dispatch(["data", "import", str(tmp_path / "datasets"), f"out={tmp_path / 'demos'}"]) == 0
    store = DemoStore.open(tmp_path / "demos")
    close, pick = "close the top drawer of the cabinet", "pick up the soup and place it in the basket"
    assert [store.info(number)["task"] for number in range(4)] == [close, close, pick, pick]
    assert store.spec.task == f"{close} + {pick}"


@pytest.mark.parametrize(
    ("file", "task"),
    [
        (f"bddl_files/libero_90/{DRAWER}.bddl", "close the top drawer of the cabinet"),
        (f"C:\\bddl_files\\{SOUP}.bddl", "pick up the soup and place it in the basket"),
        ("LIVING_ROOM_SCENE5_put_the_red_mug_on_the_left_plate.bddl", "put the red mug on the left plate"),
    ],
)
def test_task_names(file, task) -> None:
    assert task_name(file) == task


def test_its_files_are_not_taken_for_those_of_robomimic(tmp_path) -> None:
    assert detect_format(write_libero(tmp_path / "a_demo.hdf5")).NAME == "libero"
    with pytest.raises(UserError, match="import-only"):
        load_export_format("libero")


def test_what_does_not_fit_is_refused_and_leaves_nothing(tmp_path) -> None:
    source = write_libero(tmp_path / "in" / "a_demo.hdf5")
    out = tmp_path / "demos"

    def refused(match: str, source: Path = source, **settings) -> None:
        with pytest.raises(UserError, match=match):
            import_demos(source, out, ImportConfig(**settings))
        assert not out.exists()
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []

    refused("camera in .*'front'.*agentview", cameras=["front"])
    refused("state 'velocity'.*ee_pos", state=["velocity"])
    (tmp_path / "empty").mkdir()
    refused("contains no .hdf5", tmp_path / "empty")
    write_libero(tmp_path / "in" / "b_demo.hdf5", DRAWER, (3, 1))
    refused("b_demo.hdf5: demo_1 has 1 step", tmp_path / "in")
    with h5py.File(tmp_path / "in" / "b_demo.hdf5", "r+") as file:
        del file["data/demo_0/obs/agentview_rgb"]
    refused("b_demo.hdf5 differs from .*a_demo.hdf5", tmp_path / "in")
    with h5py.File(tmp_path / "in" / "b_demo.hdf5", "r+") as file:
        del file["data"].attrs["env_args"]
    refused("b_demo.hdf5: env_args does not describe the controller", tmp_path / "in")
    with h5py.File(tmp_path / "in" / "b_demo.hdf5", "r+") as file:
        del file["data"].attrs["bddl_file_name"]
    refused("b_demo.hdf5 is not a file of LIBERO", tmp_path / "in")
    with h5py.File(source, "r+") as file:
        del file["data/demo_1/obs/ee_pos"]
        file["data/demo_1/obs/ee_pos"] = rows("ee_pos", 1, 3, 3)
    refused("demo_1 has 3 obs/ee_pos, but 5 actions", source)
