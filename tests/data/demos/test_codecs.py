"""Archives hold the same episodes in less space, and older stores are read and migrated."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from demo_data import SPEC, make_episode, make_store, same

from pixio_robot.data.demos.codecs import CODECS, RAW, ZSTD
from pixio_robot.data.demos.metadata_checksums import CHECKSUM
from pixio_robot.data.demos.migrations import FORMAT_VERSION
from pixio_robot.data.demos.root_metadata import migrate_store
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.demos.verify import verify_store
from pixio_robot.data.loading import DemoBatches
from pixio_robot.errors import UserError


def smooth_episode(seed: int):
    """As cameras see: neighbouring pixels are alike, so JPEG is near."""
    episode = make_episode(seed, length=4)
    for camera, frames in episode.images.items():
        rows, columns = np.mgrid[: frames.shape[1], : frames.shape[2]]
        for step, frame in enumerate(frames):
            frame[...] = (8 * rows + 5 * columns + 10 * step)[..., None] + SPEC.cameras[camera].height
    return episode


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("ram_bytes", [0, 1 << 30])
def test_an_archive_reads_like_a_store(tmp_path: Path, codec: str, ram_bytes: int) -> None:
    DemoStore.create(tmp_path / "s", SPEC, image_codec=codec)
    for seed in range(2):
        DemoStore.open(tmp_path / "s").append(smooth_episode(seed))
    store = DemoStore.open(tmp_path / "s", ram_bytes=ram_bytes)
    assert verify_store(store) == []
    for number in range(2):
        for camera, frames in smooth_episode(number).images.items():
            found = store.images(number, camera)
            error = np.abs(found.astype(int) - frames).mean()
            assert error <= (2 if codec == "jpeg" else 0)
            assert np.array_equal(store.images(number, camera, 1, 3), found[1:3])
    batches = DemoBatches(
        store, observation_steps=2, horizon=2, cameras=["front"], batch_size=4, seed=0, episodes=[0, 1]
    )
    assert batches.gather(np.arange(4)).observation.images["front"].shape == (4, 2, 12, 10, 3)


def test_zarr_itself_reads_archives(tmp_path: Path) -> None:
    from imagecodecs.zarr import register_codecs

    register_codecs(verbose=False)
    for codec in CODECS:
        store = DemoStore.create(tmp_path / codec, SPEC, image_codec=codec)
        store.append(smooth_episode(0))
        theirs = np.asarray(zarr.open(str(tmp_path / codec))["episodes/000000/images/front"])  # type: ignore[index]
        assert np.array_equal(theirs, store.images(0, "front"))


def test_archives_of_what_compresses_are_smaller(tmp_path: Path) -> None:
    sizes = {}
    for codec in (RAW, ZSTD):
        store = DemoStore.create(tmp_path / codec, SPEC, image_codec=codec)
        store.append(smooth_episode(0))
        file = store.episode_path(0).joinpath("images", "front", "c", "0", "0", "0", "0")
        sizes[codec] = file.stat().st_size
    assert sizes[ZSTD] < sizes[RAW]


@pytest.mark.parametrize("codec", CODECS)
def test_any_flipped_bit_of_a_frame_is_found(tmp_path: Path, codec: str) -> None:
    store = DemoStore.create(tmp_path / "s", SPEC, image_codec=codec)
    store.append(smooth_episode(0))
    file = store.episode_path(0).joinpath("images", "front", "c", "0", "0", "0", "0")
    whole = file.read_bytes()
    for place in (0, 40, len(whole) // 2, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        file.write_bytes(damaged)
        assert verify_store(DemoStore.open(tmp_path / "s", ram_bytes=0))
    file.write_bytes(whole)
    assert verify_store(DemoStore.open(tmp_path / "s")) == []


def test_an_unknown_codec(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'zstd'"):
        DemoStore.create(tmp_path / "s", SPEC, image_codec="zst")
    assert not (tmp_path / "s").exists()


def age(path: Path, version: int | None) -> None:
    """Make a store look as an earlier version wrote it."""
    metadata = json.loads((path / "zarr.json").read_text())
    for key in ("image_codec", "format_version", CHECKSUM):
        metadata["attributes"].pop(key)
    if version is not None:
        metadata["attributes"]["format_version"] = version
    (path / "zarr.json").write_text(json.dumps(metadata))


def test_an_older_store_is_read_appended_to_and_migrated(tmp_path: Path) -> None:
    path = tmp_path / "s"
    make_store(path, episodes=2)
    new = (path / "zarr.json").read_text()
    age(path, 1)
    old = DemoStore.open(path)
    assert same(old.episode(1), make_episode(1))
    assert old.append(make_episode(2)) == 2
    assert migrate_store(path) == (1, FORMAT_VERSION)
    assert json.loads((path / "zarr.json").read_text()) == json.loads(new)
    assert migrate_store(path) == (FORMAT_VERSION, FORMAT_VERSION)
    assert verify_store(DemoStore.open(path)) == []


@pytest.mark.parametrize(("version", "message"), [(None, "restore its zarr.json"), (99, "use a newer one")])
def test_a_missing_or_newer_version_is_refused_and_left_alone(tmp_path: Path, version, message: str) -> None:
    make_store(tmp_path / "s", episodes=1)
    age(tmp_path / "s", version)
    before = (tmp_path / "s" / "zarr.json").read_bytes()
    for attempt in (DemoStore.open, migrate_store):
        with pytest.raises(UserError, match=message):
            attempt(tmp_path / "s")
    assert (tmp_path / "s" / "zarr.json").read_bytes() == before
