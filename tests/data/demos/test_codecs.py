"""Archives hold the same episodes in less space, and older stores are read and migrated."""

import dataclasses
import json
import struct
from pathlib import Path

import google_crc32c
import imagecodecs
import numpy as np
import pytest
import zarr
from demo_data import SPEC, make_episode, make_store, same
from numcodecs.zstd import Zstd

from pixio_robot.data.demos.codecs import CODECS, JPEG, JPEGXL, RAW, ZSTD, zstd_content_size
from pixio_robot.data.demos.metadata_checksums import CHECKSUM
from pixio_robot.data.demos.migrations import FORMAT_VERSION
from pixio_robot.data.demos.root_metadata import migrate_store
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.demos.verify import verify_store
from pixio_robot.data.loading import DemoWindows
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
    windows = DemoWindows(store, observation_steps=2, horizon=2, cameras=["front"], episodes=[0, 1])
    assert windows.gather(np.arange(4)).observation.images["front"].shape == (4, 2, 12, 10, 3)


def test_zarr_itself_reads_archives(tmp_path: Path) -> None:
    from imagecodecs.zarr import register_codecs

    register_codecs(verbose=False)
    for codec in CODECS:
        store = DemoStore.create(tmp_path / codec, SPEC, image_codec=codec)
        store.append(smooth_episode(0))
        theirs = np.asarray(zarr.open(str(tmp_path / codec))["episodes/000000/images/front"])  # type: ignore[index]
        assert np.array_equal(theirs, store.images(0, "front"))


@pytest.mark.parametrize("codec", CODECS)
def test_frames_are_written_as_zarr_itself_writes_them(tmp_path: Path, codec: str) -> None:
    from imagecodecs.zarr import register_codecs

    register_codecs(verbose=False)
    store = DemoStore.create(tmp_path / "s", SPEC, image_codec=codec)
    store.append(make_episode(0, length=5))
    ours = zarr.open_array(store.episode_path(0) / "images" / "front")
    zarr.create_array(
        tmp_path / "theirs",
        data=make_episode(0, length=5).images["front"],
        chunks="auto",
        shards=None,
        serializer=ours.metadata.codecs[0],  # type: ignore[union-attr]
        filters=None,
        compressors=None,
        config={"write_empty_chunks": True},
    )
    written = [path / "c/0/0/0/0" for path in (store.episode_path(0) / "images" / "front", tmp_path / "theirs")]
    assert written[0].read_bytes() == written[1].read_bytes()


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


def stored_payload(file: Path) -> bytes:
    """The one frame of a shard, without its checksum and the index."""
    return file.read_bytes()[: -(16 + 4) - 4]


def write_shard(file: Path, payload: bytes) -> None:
    """A shard of one frame whose checksums are right."""

    def checksum(content: bytes) -> bytes:
        return google_crc32c.value(content).to_bytes(4, "little")

    frame = payload + checksum(payload)
    index = struct.pack("<QQ", 0, len(frame))
    file.write_bytes(frame + index + checksum(index))


def claim_65500_pixels(jpeg: bytes) -> bytes:
    start_of_frame = jpeg.index(b"\xff\xc0")
    return jpeg[: start_of_frame + 5] + struct.pack(">HH", 65500, 65500) + jpeg[start_of_frame + 9 :]


def claim_a_terabyte(_: bytes) -> bytes:
    return b"\x28\xb5\x2f\xfd\xe0" + (2**40).to_bytes(8, "little") + b"\x01\x00\x00"


@pytest.mark.parametrize(
    ("codec", "hostile", "message"),
    [
        (JPEG, claim_65500_pixels, r"\(65500, 65500\) instead of \(12, 10\)"),
        (ZSTD, claim_a_terabyte, "1099511627776 bytes instead of 360"),
        (ZSTD, lambda _: bytes(Zstd().encode(bytes(10**6))), "1000000 bytes instead of 360"),
        (ZSTD, lambda payload: payload + claim_a_terabyte(b""), "buffer too small"),
        (ZSTD, lambda _: b"\x28\xb5\x2f\xfd\x00", "not a Zstandard frame"),
        (JPEGXL, lambda _: imagecodecs.jpegxl_encode(np.zeros((40, 50, 3), np.uint8)), r"shape=\(40, 50, 3\)"),
    ],
)
def test_what_a_frame_claims_to_decode_to_is_checked_before_memory_is_taken(
    tmp_path: Path, codec: str, hostile, message: str
) -> None:
    spec = dataclasses.replace(SPEC, cameras={"front": SPEC.cameras["front"]})
    store = DemoStore.create(tmp_path / "s", spec, image_codec=codec)
    episode = make_episode(0, length=1)
    store.append(dataclasses.replace(episode, images={"front": episode.images["front"]}))
    file = store.episode_path(0).joinpath("images", "front", "c", "0", "0", "0", "0")
    honest = store.images(0, "front")
    payload = stored_payload(file)
    write_shard(file, payload)
    assert np.array_equal(DemoStore.open(tmp_path / "s").images(0, "front"), honest)
    write_shard(file, hostile(payload))
    with pytest.raises(UserError, match=rf"frame 0 cannot be decoded.*{message}"):
        DemoStore.open(tmp_path / "s").images(0, "front")


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65791, 65792, 10**6])
@pytest.mark.parametrize("level", [1, 9, 22])
def test_the_size_in_a_zstandard_header(size: int, level: int) -> None:
    assert zstd_content_size(bytes(Zstd(level=level).encode(bytes(size)))) == size


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
