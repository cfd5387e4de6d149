"""Shards: what the writer writes the reader reads, and every way in which a folder can be unfit is explained."""

from __future__ import annotations

import json
import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from pixio_robot.data.images import shards as shards_module
from pixio_robot.data.images.codec import CorruptImage, decode_jpeg, encode_jpeg
from pixio_robot.data.images.shards import FrameShards, ShardReader, ShardWriter
from pixio_robot.data.ingest.pipeline import IngestConfig, ingest
from pixio_robot.errors import UserError


def pictures(count: int, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [
        cv2.resize(random.integers(0, 255, (6, 8, 3), np.uint8), (int(random.integers(40, 90)), 40))
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished ingest of two folders of photographs."""
    root = tmp_path_factory.mktemp("finished")
    for name, seed in (("a", 0), ("b", 1)):
        (root / "in" / name).mkdir(parents=True)
        for number, picture in enumerate(pictures(30, seed)):
            cv2.imwrite(str(root / "in" / name / f"{number:03d}.png"), picture)
    out = root / "shards"
    config = IngestConfig(source=str(root / "in"), out=str(out), workers=1, short_side=0, shard_bytes=50_000)
    ingest(config)
    return out


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged, beside its photographs in `in`."""
    shutil.copytree(finished.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / "shards"


def test_writer_and_reader_agree_and_shards_are_bounded(tmp_path: Path) -> None:
    jpegs = [encode_jpeg(picture, 90) for picture in pictures(200)]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        writer = ShardWriter(tmp_path / name, "train", shard_bytes=50_000)
        for number, jpeg in enumerate(jpegs):
            record = {"video": 3, "time_s": number / 4, "height": 40, "width": 60, "phash": number}
            writer.add(jpeg, video_id="a", number=number, record=record)
        writer.close()
    assert len(writer.shards) > 3
    assert all(shard["bytes"] <= 50_000 for shard in writer.shards)
    # Nothing of the moment of writing goes in.
    for shard in writer.shards:
        assert (tmp_path / "one" / shard["name"]).read_bytes() == (tmp_path / "two" / shard["name"]).read_bytes()
        with tarfile.open(tmp_path / "two" / shard["name"]) as tar:
            assert all(name.endswith(".jpg") and name.count(".") == 1 for name in tar.getnames())
    reader = ShardReader(tmp_path / "two", "train", [shard["name"] for shard in writer.shards])
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(reader.jpeg, range(200))) == jpegs
    reader.close()


def test_more_shards_than_open_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "MAX_OPEN_SHARDS", 1)
    shards = FrameShards.open(folder)
    images = [shards.image(i) for i in range(len(shards))]
    assert len(images) == 30
    shards.close()


def test_shards_that_are_replaced_under_a_reader_are_not_taken_for_its_own(folder: Path, tmp_path: Path) -> None:
    shards = FrameShards.open(folder)
    first = shards.image(0)
    for number, picture in enumerate(pictures(60, 3)):
        cv2.imwrite(str(tmp_path / "in" / "a" / f"{number:03d}.png"), picture)
    config = IngestConfig(source=str(tmp_path / "in"), out=str(folder), workers=1, short_side=0, shard_bytes=50_000)
    assert ingest(config).changed
    assert np.array_equal(shards.image(0), first)  # its shard is open
    with pytest.raises(UserError, match=r"train-\d+.tar was replaced or removed while it was being read"):
        shards.image(len(shards) - 1)
    shards.close()
    assert len(FrameShards.open(folder)) > len(shards)


def test_a_frame_larger_than_a_shard_gets_its_own(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    writer = ShardWriter(tmp_path, "train", shard_bytes=50_000)
    for number in range(2):
        record = {"video": 0, "time_s": 0, "height": 300, "width": 300, "phash": 0}
        writer.add(encode_jpeg(noise, 95), video_id="a", number=number, record=record)
    writer.close()
    assert len(writer.shards) == 2


def test_unfit_folders_are_explained(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not a folder of frame shards: it has no manifest.json"):
        FrameShards.open(tmp_path)
    with pytest.raises(UserError, match="Did you mean 'validation'"):
        FrameShards.open(folder, "valid")
    tar = folder / "train-000000.tar"
    whole = tar.read_bytes()
    tar.write_bytes(whole[:-512])
    with pytest.raises(UserError, match=r"does not match .*train-000000.tar: it has"):
        FrameShards.open(folder)
    tar.unlink()
    with pytest.raises(UserError, match="is missing"):
        FrameShards.open(folder)
    tar.write_bytes(whole)
    index = (folder / "train.npy").read_bytes()
    (folder / "train.npy").write_bytes((folder / "validation.npy").read_bytes()[:-40])
    with pytest.raises(UserError, match=r"index .*train.npy"):
        FrameShards.open(folder)
    (folder / "train.npy").write_bytes(index)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"format_version": 99}))
    with pytest.raises(UserError, match="format_version 99"):
        FrameShards.open(folder)
    (folder / "manifest.json").write_text('{"kind": "something else"}')
    with pytest.raises(UserError, match="not a manifest of frame shards"):
        FrameShards.open(folder)


def test_an_empty_split_is_explained(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "a.png"), pictures(1)[0])
    ingest(IngestConfig(source=str(tmp_path / "in"), out=str(tmp_path / "out"), workers=1))
    with pytest.raises(UserError, match="no validation frames"):
        FrameShards.open(tmp_path / "out", "validation")


def test_overwritten_bytes_are_a_corrupt_image_with_its_name(folder: Path) -> None:
    shards = FrameShards.open(folder)
    offset = int(shards.reader.records["offset"][4])
    with (folder / "train-000000.tar").open("r+b") as file:
        file.seek(offset)
        file.write(bytes(64))
    with pytest.raises(CorruptImage, match=r"[ab]/@4.000"):
        shards.image(4)
    assert shards.image(5).ndim == 3
    shards.close()


def test_a_jpeg_that_claims_to_be_enormous_is_refused_before_it_is_decoded() -> None:
    jpeg = encode_jpeg(pictures(1)[0], 90)
    size = jpeg.index(b"\xff\xc0") + 5
    with pytest.raises(CorruptImage, match="a@0: absurd dimensions 65500x40"):
        decode_jpeg(jpeg[: size + 2] + (65500).to_bytes(2, "big") + jpeg[size + 4 :], "a@0")
    assert decode_jpeg(jpeg, "a@0").shape[0] == 40
