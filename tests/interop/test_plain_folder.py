"""Folders of npz and mp4, ours and other people's."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from demo_data import SPEC, make_episode, same

from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.demos.verify import verify_store
from pixio_robot.errors import UserError
from pixio_robot.interop import plain_folder
from pixio_robot.interop.demo_formats import detect_format
from pixio_robot.interop.plain_folder import ExportConfig, Images, ImportConfig
from pixio_robot.interop.plain_folder_videos import read_video, write_video
from pixio_robot.types import CameraSpec


def large_store(path: Path, episodes: int = 3) -> DemoStore:
    """Films need 16 px at least, and odd sides shall do as well."""
    cameras = {"front": CameraSpec(height=17, width=23, fov_y_degrees=45.0), "hand": CameraSpec(height=16, width=16)}
    spec = dataclasses.replace(SPEC, cameras=cameras)
    store = DemoStore.create(path, spec)
    for seed in range(episodes):
        episode, rng = make_episode(seed), np.random.default_rng(seed)
        images = {
            name: rng.integers(0, 256, (len(episode), camera.height, camera.width, 3), np.uint8)
            for name, camera in cameras.items()
        }
        store.append(dataclasses.replace(episode, images=images))
    return store


@pytest.mark.parametrize("images", list(Images))
def test_there_and_back_is_exact(images: Images, tmp_path: Path) -> None:
    store = large_store(tmp_path / "s")
    outcome = plain_folder.export_demos(store.path, tmp_path / "folder", ExportConfig(images=images))
    assert (outcome.episodes, outcome.frames, outcome.notes) == (3, store.lengths.sum(), [])
    assert detect_format(tmp_path / "folder").NAME == "folder"
    back = plain_folder.import_demos(tmp_path / "folder", tmp_path / "back", ImportConfig())
    assert back.notes == []
    again = DemoStore.open(tmp_path / "back")
    assert verify_store(again) == []
    assert again.spec == store.spec
    assert all(same(again.episode(number), store.episode(number)) for number in range(3))
    with pytest.raises(UserError, match="already exists"):
        plain_folder.export_demos(store.path, tmp_path / "folder", ExportConfig(images=images))


def test_small_films_say_what_they_lose(tmp_path: Path) -> None:
    store = large_store(tmp_path / "s", episodes=1)
    with pytest.raises(UserError, match="even numbers"):
        plain_folder.export_demos(store.path, tmp_path / "folder", ExportConfig(crf=18))
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
    frames = np.repeat(np.arange(40, 200, 20, dtype=np.uint8), 16 * 16 * 3).reshape(-1, 16, 16, 3)
    write_video(tmp_path / "f.mp4", frames, 20.0, 18)
    assert np.abs(read_video(tmp_path / "f.mp4", len(frames)).astype(int) - frames).max() <= 6


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """What somebody might have: a film for each episode in a folder of its own, arrays of many kinds."""
    root, rng = tmp_path / "stack blocks", np.random.default_rng(0)
    for number, length in ((2, 6), (10, 5)):
        (root / f"take{number}").mkdir(parents=True)
        np.savez(
            root / f"take{number}.npz",
            q=rng.normal(size=(length, 2)),
            grip=np.arange(length) % 2 == 0,
            command=rng.normal(size=(length, 3)).astype(np.float32),
            depth_scale=1.0,
        )
        write_video(root / f"take{number}" / "top.mp4", rng.integers(0, 256, (length, 16, 20, 3), np.uint8), 30.0, 0)
    return root


CHOSEN = {"state": ["q", "grip"], "actions": ["command"]}


def test_folders_of_others_are_read(theirs: Path, tmp_path: Path) -> None:
    outcome = plain_folder.import_demos(theirs, tmp_path / "s", ImportConfig(**CHOSEN, hz=30.0))
    store = DemoStore.open(tmp_path / "s")
    assert store.lengths.tolist() == [6, 5]
    with np.load(theirs / "take10.npz") as arrays:
        np.testing.assert_array_equal(store.state(1)[:, :2], arrays["q"].astype(np.float32))
        np.testing.assert_array_equal(store.state(1)[:, 2], arrays["grip"])
        np.testing.assert_array_equal(store.actions(1), arrays["command"])
    assert (store.spec.task, store.spec.control_hz, store.spec.robot) == ("stack blocks", 30.0, "unknown")
    assert store.spec.cameras == {"top": CameraSpec(height=16, width=20)}
    text = "; ".join(outcome.notes)
    for words in ("left out: depth_scale", "rounded to float32: q", "set to 0", "success=True", "unknown: robot"):
        assert words in text


def test_dataset_json_says_what_they_mean(theirs: Path, tmp_path: Path) -> None:
    described = {
        "task": "Stack",
        "control_hz": 15,
        "state_names": ["a [rad]", "b [rad]", "grip"],
        "cameras": {"top": {"fov_y_degrees": 60.0}},
    }
    (theirs / "dataset.json").write_text(json.dumps(described))
    plain_folder.import_demos(theirs, tmp_path / "s", ImportConfig(**CHOSEN, robot="UR5e"))
    spec = DemoStore.open(tmp_path / "s").spec
    assert (spec.task, spec.robot, spec.control_hz, spec.state_names[0]) == ("Stack", "UR5e", 15.0, "a [rad]")
    assert spec.cameras["top"] == CameraSpec(height=16, width=20, fov_y_degrees=60.0)
    for wrong, message in (({"robt": "x"}, "only fields"), ({"cameras": {"tip": {}}}, "names the camera 'tip'")):
        (theirs / "dataset.json").write_text(json.dumps({"control_hz": 5} | wrong))
        with pytest.raises(UserError, match=message):
            plain_folder.import_demos(theirs, tmp_path / "x", ImportConfig(**CHOSEN))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ImportConfig(**CHOSEN), "does not specify control_hz"),
        (ImportConfig(hz=5), "has no array 'actions'"),
        (ImportConfig(state=["q", "depth_scale"], actions=["command"], hz=5), "one row per step"),
    ],
)
def test_what_is_missing_is_named(theirs: Path, tmp_path: Path, config: ImportConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        plain_folder.import_demos(theirs, tmp_path / "s", config)
    assert not (tmp_path / "s").exists()


def test_damage_names_the_file(theirs: Path, tmp_path: Path) -> None:
    config = ImportConfig(**CHOSEN, hz=30.0)

    def refused(message: str) -> None:
        with pytest.raises(UserError, match=message):
            plain_folder.import_demos(theirs, tmp_path / "s", config)
        assert not (tmp_path / "s").exists()

    film, npz = theirs / "take10" / "top.mp4", theirs / "take10.npz"
    whole = film.read_bytes(), npz.read_bytes()
    write_video(film, np.zeros((3, 16, 20, 3), np.uint8), 30.0, 0)
    refused("top.mp4 has 3 frames, but its episode has 5 steps")
    film.write_bytes(whole[0][: len(whole[0]) // 2])
    refused("top.mp4 cannot be used")
    film.write_bytes(whole[0])
    npz.write_bytes(whole[1][:100])
    refused("take10.npz cannot be read")
    np.savez_compressed(npz, q=np.random.default_rng(0).normal(size=(500, 2)))
    packed = bytearray(npz.read_bytes())
    packed[100:120] = b"\xff" * 20
    npz.write_bytes(packed)
    refused("take10.npz cannot be read")
    np.savez(npz, q=np.full((5, 2), np.nan), grip=np.zeros(5), command=np.zeros((5, 3)))
    refused("Episode 1 cannot be written.*not finite at step 0")
    np.savez(npz, q=np.zeros((4, 2)), grip=np.zeros(5), command=np.zeros((5, 3)))
    refused("q, grip must have the same number of rows, but have 4, 5")
    np.savez(npz, q=np.array([{}], object), command=np.zeros((5, 3)))
    refused("take10.npz cannot be read")
