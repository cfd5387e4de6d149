"""ALOHA's folders, written here as ACT's record_sim_episodes.py and ALOHA's record_episodes.py write them."""

import functools
import sys
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
from demo_data import import_store

from pixio_robot.cli.main import main
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.demos.verify import verify_store
from pixio_robot.errors import UserError
from pixio_robot.interop import aloha
from pixio_robot.interop.aloha import ImportConfig, Jpeg, import_demos
from pixio_robot.interop.demo_formats import detect_format, load_export_format

LENGTHS = {0: 4, 1: 3, 2: 5, 10: 3}
CAMERAS = ("top", "left_wrist")
RED = (250, 10, 20)


def frames(number: int, length: int) -> np.ndarray:
    """(t, h, w, 3), RGB: all of one colour each, which JPEG keeps, red at first."""
    colours = np.random.default_rng(number).integers(0, 256, (length, 3))
    colours[0] = RED
    return np.broadcast_to(colours[:, None, None], (length, 16, 24, 3)).astype(np.uint8)


def write_simulated(folder: Path) -> Path:
    folder.mkdir()
    for number, length in LENGTHS.items():
        with h5py.File(folder / f"episode_{number}.hdf5", "w") as root:
            root.attrs["sim"] = True
            obs = root.create_group("observations")
            images = obs.create_group("images")
            for camera in CAMERAS:
                images.create_dataset(camera, (length, 16, 24, 3), dtype="uint8", chunks=(1, 16, 24, 3))[...] = frames(
                    number, length
                )
            for group, key in ((obs, "qpos"), (obs, "qvel"), (root, "action")):
                group.create_dataset(key, (length, 14), dtype="f4")[...] = numbers(key, number, length)
    return folder


def numbers(key: str, number: int, length: int, width: int = 14) -> np.ndarray:
    return np.random.default_rng([number, *key.encode()]).normal(size=(length, width)).astype(np.float32)


def write_recorded(folder: Path, exchanged: bool = True) -> Path:
    """With compression, as on the robot: the images go to OpenCV's encoder in RGB, padded to the longest of all."""
    folder.mkdir()
    for number, length in LENGTHS.items():
        # The order of compress_len is that of the recorder's cameras, not the file's.
        coded = [
            [
                cv2.imencode(".jpg", frame if exchanged else frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 50])[1]
                for frame in frames(number + place, length)
            ]
            for place in range(len(CAMERAS))
        ]
        lengths = np.array([[len(one) for one in camera] for camera in coded])
        with h5py.File(folder / f"episode_{number}.hdf5", "w") as root:
            root.attrs["sim"], root.attrs["compress"] = False, True
            obs = root.create_group("observations")
            for camera, images in zip(CAMERAS, coded, strict=True):
                padded = np.zeros((length, lengths.max()), np.uint8)
                for row, one in zip(padded, images, strict=True):
                    row[: len(one)] = one.ravel()
                obs[f"images/{camera}"] = padded
            for group, key in ((obs, "qpos"), (obs, "qvel"), (obs, "effort"), (root, "action")):
                group.create_dataset(key, (length, 14), dtype="f4")[...] = numbers(key, number, length)
            root.create_dataset("base_action", (length, 2), dtype="f4")[...] = numbers("base_action", number, length, 2)
            root.create_dataset("compress_len", lengths.shape, dtype="f4")[...] = lengths
    return folder


imported = functools.partial(import_store, aloha)


def test_every_number_arrives_in_numeric_order(tmp_path: Path) -> None:
    source = write_simulated(tmp_path / "sim_transfer_cube_scripted")
    (source / "._episode_0.hdf5").write_bytes(b"as macOS leaves beside a file")
    outcome = import_demos(source, tmp_path / "s", ImportConfig())
    store = DemoStore.open(tmp_path / "s")
    assert (outcome.episodes, outcome.frames) == (4, sum(LENGTHS.values()))
    assert verify_store(store) == []
    for place, (number, length) in enumerate(LENGTHS.items()):
        episode = store.episode(place)
        assert dict(episode.info) == {"file": f"episode_{number}.hdf5", "sim": True}
        np.testing.assert_array_equal(episode.state, numbers("qpos", number, length))
        np.testing.assert_array_equal(episode.actions, numbers("action", number, length))
        for camera in CAMERAS:
            np.testing.assert_array_equal(episode.images[camera], frames(number, length))
    spec = store.spec
    assert (spec.task, spec.robot, spec.control_hz) == ("sim_transfer_cube_scripted", "ALOHA", 50)
    assert set(spec.cameras) == set(CAMERAS)
    assert spec.action_names == spec.state_names
    assert [spec.action_names[column] for column in (0, 3, 6, 7, 13)] == [
        "left_waist [rad]",
        "left_forearm_roll [rad]",
        "left_gripper [0 closed, 1 open]",
        "right_waist [rad]",
        "right_gripper [0 closed, 1 open]",
    ]
    assert any("control_hz=50, as published" in note for note in outcome.notes)
    assert "left out: observations/qvel (select with state=, actions= and cameras=)" in outcome.notes


@pytest.mark.parametrize(("exchanged", "jpeg"), [(True, Jpeg.ACT), (False, Jpeg.STANDARD)])
def test_compressed_images_come_in_their_colours(tmp_path: Path, exchanged: bool, jpeg: Jpeg) -> None:
    source = write_recorded(tmp_path / "real", exchanged)
    store = imported(
        source,
        tmp_path / "s",
        jpeg=jpeg,
        state=["qpos", "qvel", "effort"],
        actions=["action", "base_action"],
        cameras=["left_wrist"],
        control_hz=30,
    )
    assert list(store.spec.cameras) == ["left_wrist"]
    assert np.abs(store.images(0, "left_wrist")[0].astype(int) - RED).max() < 12
    for place, (number, length) in enumerate(LENGTHS.items()):
        assert np.abs(store.images(place, "left_wrist").astype(int) - frames(number + 1, length)).max() < 12
    assert (store.spec.state_dim, store.spec.action_dim, store.spec.control_hz) == (42, 16, 30)
    assert store.spec.state_names[14] == "left_waist_vel [rad/s]"
    assert store.spec.state_names[-1] == "right_gripper_effort"
    assert store.spec.action_names[-1] == "base_angular_vel [rad/s]"
    assert store.info(0)["sim"] is False


def test_the_command_knows_the_folder_and_a_single_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_recorded(tmp_path / "real")
    assert detect_format(source).NAME == "aloha"
    assert detect_format(source / "episode_2.hdf5").NAME == "aloha"
    monkeypatch.setattr(
        sys, "argv", ["pixio-robot", "data", "import", str(source), f"out={tmp_path / 's'}", "jpeg=act"]
    )
    assert main() == 0
    text = capsys.readouterr().out
    assert "(aloha)" in text
    assert "read with jpeg=act; if red and blue look swapped, use jpeg=standard" in text
    with pytest.raises(UserError, match="format=aloha is import-only"):
        load_export_format("aloha")


def test_other_widths_are_numbered(tmp_path: Path) -> None:
    source = write_simulated(tmp_path / "f")
    for path in source.iterdir():
        with h5py.File(path, "r+") as file:
            qpos = file["observations/qpos"][:, :7]  # type: ignore[index]
            del file["observations/qpos"]
            file["observations/qpos"] = qpos
    assert imported(source, tmp_path / "s").spec.state_names == tuple(f"qpos.{number}" for number in range(7))


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        ("", {"cameras": ["tip"]}, "Did you mean 'top'"),
        ("", {"state": ["qpso"]}, r"no dataset observations/qpso, only images, qpos, qvel"),
        ("", {"action_names": ["a"]}, "action_names= has 1 names, but action has 14 columns"),
        ("", {"control_hz": 0.0}, "must be positive"),
        ("short", {}, r"episode_1.hdf5 has 2 rows of observations and 3 of action"),
        ("size", {}, "episode_2.hdf5: image 0 of top is not a JPEG, or is damaged"),
        ("cut", {}, r"episode_10.hdf5 cannot be opened as HDF5"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, change: str, settings: dict[str, Any], message: str) -> None:
    source = write_simulated(tmp_path / "f")
    if change == "short":
        with h5py.File(source / "episode_1.hdf5", "r+") as file:
            del file["observations/qpos"]
            file["observations/qpos"] = np.zeros((2, 14), np.float32)
    elif change == "size":
        with h5py.File(source / "episode_2.hdf5", "r+") as file:
            del file["observations/images/top"]
            file["observations/images/top"] = np.zeros((5, 9), np.uint8)
    elif change == "cut":
        path = source / "episode_10.hdf5"
        path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(UserError, match=message):
        import_demos(source, tmp_path / "s", ImportConfig(**settings))
    assert not (tmp_path / "s").exists()
