"""What goes into a store comes out of it, damage is named, and other things are not taken for a store."""

import dataclasses
import itertools
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from demo_data import SPEC, make_episode, make_store, same

from pixio_robot.data.demos import arrays
from pixio_robot.data.demos.metadata_checksums import add_checksum
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.demos.verify import verify_store
from pixio_robot.errors import UserError
from pixio_robot.types import CameraSpec


@pytest.mark.parametrize("ram_bytes", [0, 1 << 30])
def test_round_trip(tmp_path: Path, ram_bytes: int) -> None:
    make_store(tmp_path / "s", episodes=4)
    store = DemoStore.open(tmp_path / "s", ram_bytes=ram_bytes)
    assert len(store) == 4
    assert store.spec == SPEC
    assert store.seeds == [0, 1, 2, 3]
    assert store.lengths.tolist() == [len(make_episode(seed)) for seed in range(4)]
    assert all(same(store.episode(seed), make_episode(seed)) for seed in range(4))
    assert np.array_equal(store.images(2, "front", 1, 3), make_episode(2).images["front"][1:3])
    assert verify_store(store) == []


def test_zarr_itself_reads_the_same(tmp_path: Path) -> None:
    make_store(tmp_path / "s", episodes=2)
    group = zarr.open_group(tmp_path / "s", mode="r")
    episode = make_episode(1)
    for camera, frames in episode.images.items():
        assert np.array_equal(group[f"episodes/000001/images/{camera}"][...], frames)
    for name in ("state", "actions", "rewards"):
        assert np.array_equal(group[f"episodes/000001/{name}"][...], getattr(episode, name))
    assert group["episodes/000001"].attrs["seed"] == 1
    assert group.attrs["format"] == "pixio_robot.demos"


def test_all_black_frames_are_written_and_not_taken_for_missing_ones(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", episodes=0)
    black = make_episode(0, length=5)
    black = dataclasses.replace(black, images={name: np.zeros_like(frames) for name, frames in black.images.items()})
    store.append(black)
    assert verify_store(store) == []
    assert same(DemoStore.open(tmp_path / "s").episode(0), black)
    zarr.config.set({"array.read_missing_chunks": False})
    try:
        assert not np.any(zarr.open_group(tmp_path / "s", mode="r")["episodes/000000/images/front"][...])
    finally:
        zarr.config.set({"array.read_missing_chunks": True})


def test_a_store_without_cameras(tmp_path: Path) -> None:
    store = DemoStore.create(tmp_path / "s", dataclasses.replace(SPEC, cameras={}))
    store.append(dataclasses.replace(make_episode(3), images={}))
    assert verify_store(store) == []
    assert np.array_equal(store.state(0), make_episode(3).state)


@pytest.mark.parametrize("ram_bytes", [0, 1 << 30])
def test_frames_that_are_not_there_are_not_handed_out(tmp_path: Path, ram_bytes: int) -> None:
    make_store(tmp_path / "s", episodes=1)
    store = DemoStore.open(tmp_path / "s", ram_bytes=ram_bytes)
    length = len(make_episode(0))
    for start, stop in ((-1, 1), (0, length + 1), (2, 1)):
        with pytest.raises(UserError, match=f"has {length} frames"):
            store.images(0, "front", start, stop)
    assert store.images(0, "front", 1, 1).shape == (0, 12, 10, 3)
    with pytest.raises(UserError, match=r"Unknown camera 'frnt'. Did you mean 'front'"):
        store.images(0, "frnt")


def test_another_process_is_sent_the_place_and_not_the_frames(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s")
    store.episode(0)
    content = pickle.dumps(store)
    assert len(content) < 2000
    assert same(pickle.loads(content).episode(0), make_episode(0))


def test_a_reader_sees_later_episodes_when_it_looks_again(tmp_path: Path) -> None:
    writer = make_store(tmp_path / "s", episodes=1)
    reader = DemoStore.open(tmp_path / "s")
    writer.append(make_episode(1))
    assert len(reader) == 1
    reader.refresh()
    assert len(reader) == 2


def test_a_number_that_no_episode_has_is_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", episodes=2)
    assert repr(store) == f"<DemoStore {tmp_path / 's'}: 2 episodes of {store.spec.task}>"
    for read in (store.episode, store.info, store.state, lambda number: store.images(number, "hand")):
        for number in (-1, 2):
            with pytest.raises(UserError, match=f"has 2 episodes, counted from 0; there is no episode {number}"):
                read(number)


def test_episodes_come_in_order_and_cannot_be_written_to(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", episodes=2)
    for number, episode in enumerate(store):
        assert same(episode, make_episode(number))
        for values in (*episode.images.values(), episode.state):
            with pytest.raises(ValueError, match="read-only"):
                values[0] = 0


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("actions", [[0.0, 1.0]] * 4, r"actions must be a NumPy array, not builtins\.list"),
        ("state", torch.zeros(4, 3), r"state must be a NumPy array, not torch\.Tensor"),
        ("state", np.zeros((4, 2), np.float32), r"state has shape \(4, 2\)"),
        ("actions", np.full((4, 2), np.nan, np.float32), "actions has a value that is not finite at step 0"),
        ("rewards", np.zeros(3, np.float32), r"rewards has shape \(3,\)"),
        ("images", {}, "has cameras"),
        ("state", np.zeros((4, 3)), "state has dtype float64; it must be float32"),
        ("actions", np.zeros((4, 2), np.int64), "actions has dtype int64"),
        ("actions", np.zeros((0, 2), np.float32), "at least one step"),
        ("info", {"when": object()}, "info must be plain JSON"),
        ("info", {"noise": float("nan")}, "info must be plain JSON"),
    ],
)
def test_an_episode_that_does_not_fit_is_refused(tmp_path: Path, field: str, value: object, message: str) -> None:
    store = make_store(tmp_path / "s", episodes=1)
    with pytest.raises(UserError, match=message):
        store.append(dataclasses.replace(make_episode(5, length=4), **{field: value}))
    assert len(DemoStore.open(tmp_path / "s")) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cameras": {"a/b": CameraSpec(height=4, width=4)}}, "camera name 'a/b'"),
        ({"cameras": {"..": CameraSpec(height=4, width=4)}}, r"camera name '\.\.'"),
        ({"cameras": {"a": CameraSpec(height=0, width=4)}}, "0 x 4 pixels"),
        ({"state_names": ()}, "state_names is empty"),
        ({"robot": "\rPanda"}, "has control characters"),
    ],
)
def test_a_spec_that_cannot_be_stored_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        DemoStore.create(tmp_path / "s", dataclasses.replace(SPEC, **change))
    assert not list(tmp_path.iterdir())


def test_floating_point_images_are_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", episodes=0)
    episode = make_episode(0)
    images = {name: frames.astype(np.float32) / 255 for name, frames in episode.images.items()}
    with pytest.raises(UserError, match=r"images of 'front' has dtype float32"):
        store.append(dataclasses.replace(episode, images=images))


def chunk(store: Path, episode: int, name: str) -> Path:
    return next(path for path in (store / "episodes" / f"{episode:06d}" / name / "c").rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ["state", "actions", "rewards", "images/front", "images/hand"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_damage_is_found_and_named(tmp_path: Path, name: str, damage: str) -> None:
    make_store(tmp_path / "s", episodes=3)
    path = chunk(tmp_path / "s", 1, name)
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 3] ^= 1
        path.write_bytes(content)
    elif damage == "truncate":
        path.write_bytes(content[:-7])
    else:
        path.unlink()
    problems = verify_store(DemoStore.open(tmp_path / "s"))
    assert problems
    assert all(problem.startswith("episode 1, ") and name.split("/")[-1] in problem for problem in problems)
    if damage != "flip":
        with pytest.raises(UserError, match=r"damaged|cannot be read"):
            DemoStore.open(tmp_path / "s").episode(1)


def test_verify_names_the_frame(tmp_path: Path) -> None:
    make_store(tmp_path / "s", episodes=2)
    path = chunk(tmp_path / "s", 1, "images/hand")
    content = bytearray(path.read_bytes())
    content[2 * (8 * 8 * 3 + 4) + 17] ^= 4
    path.write_bytes(content)
    (problem,) = verify_store(DemoStore.open(tmp_path / "s"))
    assert "episode 1, camera hand" in problem
    assert "frame 2" in problem


@pytest.mark.parametrize("name", ["state", "images/front"])
@pytest.mark.parametrize("content", [None, b"", b"[]", b"\xff\xfe", b'{"shape": [1, 2], "data_type": "float32"}'])
def test_damaged_array_metadata_is_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    make_store(tmp_path / "s", episodes=1)
    path = tmp_path / "s" / "episodes" / "000000" / name / "zarr.json"
    path.unlink() if content is None else path.write_bytes(content)
    problems = verify_store(DemoStore.open(tmp_path / "s"))
    assert problems
    assert all(problem.startswith("episode 0, ") and name.split("/")[-1] in problem for problem in problems)
    with pytest.raises(UserError, match=name):
        DemoStore.open(tmp_path / "s").episode(0)


@pytest.mark.parametrize("codec", ["raw", "zstd"])
def test_reads_are_bounded_and_a_short_one_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str
) -> None:
    """Linux reads at most 1024 buffers and less than 2 GiB per call. Here it is 4 buffers and 300 bytes."""
    asked, real = [], os.preadv

    def short(descriptor: int, places: list[memoryview], offset: int) -> int:
        asked.append(len(places))
        first = list(itertools.takewhile(lambda place: len(place) <= 300, places[:1]))
        return real(descriptor, first or [places[0][:300]], offset)

    DemoStore.create(tmp_path / "s", SPEC, image_codec=codec).append(make_episode(0, length=20))
    store = DemoStore.open(tmp_path / "s", ram_bytes=0)
    monkeypatch.setattr(arrays, "_MAX_BUFFERS_PER_READ", 4)
    monkeypatch.setattr(os, "preadv", short)
    found = store.images(0, "hand", 3, 18)
    assert np.array_equal(found, make_episode(0, length=20).images["hand"][3:18])
    assert len(asked) > 5
    assert max(asked) <= 4
    # The end of the file is still damage, and the frame is named.
    monkeypatch.setattr(
        os, "preadv", lambda descriptor, places, offset: offset < 500 and short(descriptor, places, offset)
    )
    with pytest.raises(UserError, match=r"damaged: it ends before the end of frame \d"):
        store.images(0, "hand", 0, 20)


def test_an_empty_data_file_is_damage(tmp_path: Path) -> None:
    make_store(tmp_path / "s", episodes=1)
    for name in ("state", "images/front"):
        chunk(tmp_path / "s", 0, name).write_bytes(b"")
    assert len(verify_store(DemoStore.open(tmp_path / "s"))) == 2


@pytest.mark.parametrize("content", [None, "", "{}", '{"attributes": {"length": 3}}', '{"attributes": 5}'])
def test_a_damaged_episode_header_is_named(tmp_path: Path, content: str | None) -> None:
    make_store(tmp_path / "s", episodes=3)
    path = tmp_path / "s" / "episodes" / "000001" / "zarr.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UserError, match=r"000001/zarr.json is damaged"):
        DemoStore.open(tmp_path / "s")


def test_a_lost_episode_is_named_and_can_be_made_up_for(tmp_path: Path) -> None:
    make_store(tmp_path / "s", episodes=4)
    episodes = tmp_path / "s" / "episodes"
    shutil.rmtree(episodes / "000001")
    with pytest.raises(UserError, match=r"000001 is missing .* rename 000003"):
        DemoStore.open(tmp_path / "s")
    (episodes / "000003").rename(episodes / "000001")
    store = DemoStore.open(tmp_path / "s")
    assert store.seeds == [0, 3, 2]
    assert verify_store(store) == []


@pytest.mark.parametrize("ram_bytes", [0, 1 << 30])
def test_a_flipped_pixel_is_not_handed_out_silently(tmp_path: Path, ram_bytes: int) -> None:
    make_store(tmp_path / "s", episodes=1)
    path = chunk(tmp_path / "s", 0, "images/front")
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="checksum of frame 0"):
        DemoStore.open(tmp_path / "s", ram_bytes=ram_bytes).images(0, "front")


def lerobot(path: Path) -> None:
    (path / "meta").mkdir(parents=True)
    (path / "meta" / "info.json").write_text("{}")


def diffusion_policy(path: Path) -> None:
    (path / "meta" / "episode_ends").mkdir(parents=True)


def other_zarr(path: Path) -> None:
    zarr.create_group(path)


def a_file(path: Path) -> None:
    path.with_suffix(".hdf5").write_bytes(b"\x89HDF")


def frame_shards(path: Path) -> None:
    path.mkdir()
    (path / "manifest.json").write_text("{}")
    (path / "train-000000.tar").touch()


def old_zarr(path: Path) -> None:
    zarr.create_group(path, zarr_format=2)


def damaged_store(path: Path) -> None:
    make_store(path, episodes=0)
    (path / "zarr.json").write_text((path / "zarr.json").read_text()[:-100])


def store_without_a_spec(path: Path) -> None:
    zarr.create_group(path, attributes={"format": "pixio_robot.demos", "format_version": 1})


def store_without_its_episodes(path: Path) -> None:
    make_store(path, episodes=0)
    shutil.rmtree(path / "episodes")


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (lambda path: None, "s", "There is no demonstration store"),
        (lerobot, "s", "a LeRobot data set"),
        (diffusion_policy, "s", "a diffusion_policy replay buffer"),
        (other_zarr, "s", "another tool's Zarr store"),
        (old_zarr, "s", "another tool's Zarr store"),
        (a_file, "s.hdf5", "an HDF5 file, as used by robomimic"),
        (frame_shards, "s", "a folder of frame shards"),
        (lambda path: path.mkdir(), "s", "is a folder, not"),
        (damaged_store, "s", r"zarr.json is damaged"),
        (store_without_a_spec, "s", r"no usable DemoSpec"),
        (store_without_its_episodes, "s", r"episodes is missing"),
    ],
)
def test_other_things_are_told_by_name(tmp_path: Path, make, name: str, message: str) -> None:
    make(tmp_path / "s")
    with pytest.raises(UserError, match=message):
        DemoStore.open(tmp_path / name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cameras": {"../../victim": {"height": 12, "width": 10}}}, r"'\.\./\.\./victim' cannot be used as a folder"),
        ({"cameras": {"front": {"height": 0, "width": 10}}}, "0 x 10 pixels"),
        ({"state_names": []}, "state_names is empty"),
        ({"control_hz": "ten"}, "TypeError"),
        ({"task": "\x1b]0;title\x07"}, r"x1b\]0;title\\x07' has control characters"),
        ({"action_names": ["x", "\x9b2J"]}, "x9b2J' has control characters"),
    ],
)
def test_a_spec_that_no_store_is_created_with_is_refused_when_opening(tmp_path: Path, changes, message: str) -> None:
    """Anybody can make the checksum of a name that leads out of the store, or out of an export."""
    make_store(tmp_path / "s", episodes=1)
    header = tmp_path / "s" / "zarr.json"
    metadata = json.loads(header.read_text())
    metadata["attributes"]["spec"] |= changes
    metadata["attributes"] = add_checksum(metadata["attributes"])
    header.write_text(json.dumps(metadata))
    with pytest.raises(UserError, match=rf"zarr\.json has no usable DemoSpec.*{message}"):
        DemoStore.open(tmp_path / "s")


@pytest.mark.parametrize(
    ("codec", "message"), [("jpg", "Unknown image codec 'jpg'. Did you mean"), (None, "TypeError")]
)
def test_a_codec_that_there_is_not_is_refused_when_opening(tmp_path: Path, codec, message: str) -> None:
    make_store(tmp_path / "s", episodes=1)
    header = tmp_path / "s" / "zarr.json"
    metadata = json.loads(header.read_text())
    metadata["attributes"] = add_checksum(metadata["attributes"] | {"image_codec": codec})
    header.write_text(json.dumps(metadata))
    with pytest.raises(UserError, match=rf"zarr\.json.*{message}"):
        DemoStore.open(tmp_path / "s")


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    make_store(tmp_path / "s", episodes=0)
    path = tmp_path / "s" / "zarr.json"
    metadata = json.loads(path.read_text())
    metadata["attributes"]["format_version"] = 99
    path.write_text(json.dumps(metadata))
    with pytest.raises(UserError, match="format_version 99"):
        DemoStore.open(tmp_path / "s")


def test_a_store_is_not_made_over_something_else(tmp_path: Path) -> None:
    make_store(tmp_path / "s", episodes=1)
    with pytest.raises(UserError, match="exists already"):
        DemoStore.create(tmp_path / "s", SPEC)
    assert len(DemoStore.create(tmp_path / "s", SPEC, exist_ok=True)) == 1
    with pytest.raises(UserError, match="different demonstrations: robot"):
        DemoStore.create(tmp_path / "s", dataclasses.replace(SPEC, robot="Sawyer"), exist_ok=True)
