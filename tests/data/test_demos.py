"""What goes into a store comes out of it, damage is named, and other things are not taken for a store."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from demo_data import SPEC, make_episode, make_store, same

from pixio_robot.data.demo_verify import verify
from pixio_robot.data.demos import DemoStore
from pixio_robot.errors import UserError


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
    assert verify(store) == []


def test_zarr_itself_reads_the_same(tmp_path: Path) -> None:
    make_store(tmp_path / "s", episodes=2)
    group = zarr.open_group(tmp_path / "s", mode="r")
    episode = make_episode(1)
    assert np.array_equal(group["episodes/000001/images/front"][...], episode.images["front"])
    assert np.array_equal(group["episodes/000001/state"][...], episode.state)
    assert group.attrs["format"] == "pixio_robot.demos"


def test_a_reader_sees_later_episodes_when_it_looks_again(tmp_path: Path) -> None:
    writer = make_store(tmp_path / "s", episodes=1)
    reader = DemoStore.open(tmp_path / "s")
    writer.append(make_episode(1))
    assert len(reader) == 1
    reader.refresh()
    assert len(reader) == 2


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("state", np.zeros((4, 2), np.float32), r"state has shape \(4, 2\)"),
        ("actions", np.full((4, 2), np.nan, np.float32), "actions has a value that is not finite at step 0"),
        ("rewards", np.zeros(3, np.float32), r"rewards has shape \(3,\)"),
        ("images", {}, "has cameras"),
    ],
)
def test_an_episode_that_does_not_fit_is_refused(tmp_path: Path, field: str, value: object, message: str) -> None:
    store = make_store(tmp_path / "s", episodes=1)
    with pytest.raises(UserError, match=message):
        store.append(dataclasses.replace(make_episode(5, length=4), **{field: value}))
    assert len(DemoStore.open(tmp_path / "s")) == 1


def test_floating_point_images_are_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", episodes=0)
    episode = make_episode(0)
    images = {name: frames.astype(np.float32) / 255 for name, frames in episode.images.items()}
    with pytest.raises(UserError, match=r"images of 'front' are float32"):
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
    problems = verify(DemoStore.open(tmp_path / "s"))
    assert problems
    assert all(problem.startswith("episode 1, ") and name.split("/")[-1] in problem for problem in problems)
    if damage != "flip":
        with pytest.raises(UserError, match=r"damaged|misses"):
            DemoStore.open(tmp_path / "s").episode(1)


def test_a_flipped_pixel_is_not_handed_out_silently(tmp_path: Path) -> None:
    make_store(tmp_path / "s", episodes=1)
    path = chunk(tmp_path / "s", 0, "images/front")
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="checksum of frame 0"):
        DemoStore.open(tmp_path / "s").images(0, "front")


def lerobot(path: Path) -> None:
    (path / "meta").mkdir(parents=True)
    (path / "meta" / "info.json").write_text("{}")


def diffusion_policy(path: Path) -> None:
    (path / "meta" / "episode_ends").mkdir(parents=True)


def other_zarr(path: Path) -> None:
    zarr.create_group(path)


def a_file(path: Path) -> None:
    path.with_suffix(".hdf5").write_bytes(b"\x89HDF")


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (lambda path: None, "s", "There is no demonstration store"),
        (lerobot, "s", "a LeRobot data set"),
        (diffusion_policy, "s", "a replay buffer of diffusion_policy"),
        (other_zarr, "s", "another tool's Zarr store"),
        (a_file, "s.hdf5", "a robomimic HDF5 file"),
    ],
)
def test_other_things_are_told_by_name(tmp_path: Path, make, name: str, message: str) -> None:
    make(tmp_path / "s")
    with pytest.raises(UserError, match=message):
        DemoStore.open(tmp_path / name)


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
    with pytest.raises(UserError, match="something else: robot"):
        DemoStore.create(tmp_path / "s", dataclasses.replace(SPEC, robot="Sawyer"), exist_ok=True)
