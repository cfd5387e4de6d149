"""JPEG frames in WebDataset-compatible tar shards, with an offset index for random access.

manifest.json           settings, videos, shards and counts; its presence means that the ingest has finished
train.npy               one FRAME_RECORD per frame, ordered by video and time, memory-mapped by the reader
train-000000.tar ...    <16 hex digits of the video's id>/<number>.jpg
validation.npy, validation-000000.tar ...
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pixio_robot.data.images.codec import CorruptImage, decode_jpeg
from pixio_robot.data.images.index_file import IndexWriter
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.files import read_json

MANIFEST = "manifest.json"
KIND = "frame-shards"
FORMAT_VERSION = 2
SPLITS = ("train", "validation")
FRAME_RECORD = np.dtype(
    [
        ("shard", "<u4"),
        ("offset", "<u8"),
        ("size", "<u4"),
        ("video", "<u4"),
        ("time_s", "<f8"),
        ("height", "<u4"),
        ("width", "<u4"),
        ("phash", "<u8"),
    ]
)
"""Location of the JPEG bytes (shard number, offset, size), identity of the frame (row in the manifest's videos,
seconds), its size in pixels, and its perceptual hash. 44 bytes."""
RECORDED = ("video", "time_s", "height", "width", "phash")
"""The fields that describe the frame rather than its location."""

MAX_OPEN_SHARDS = 256


def ingest_work_directory(out: Path) -> Path:
    """The folder in which an ingest into `out` keeps unfinished work."""
    return out.parent / f".{out.name}.ingest"


def member_folder(video_id: str) -> str:
    """The folder of a video's frames in the tars: ids may be too long or contain what tars cannot."""
    return hashlib.sha256(video_id.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def member_name(folder: str, number: int) -> str:
    """The name of a video's frame in the tars; its frames are numbered from 0."""
    return f"{folder}/{number:06d}.jpg"


class ShardWriter:
    """Writes `{name}-000000.tar` ... of at most `shard_bytes` each, and `{name}.npy` when closed.

    The same frames give the same bytes: times, owners and host names are not stored. A single frame larger than
    `shard_bytes` gets its own shard.
    """

    def __init__(self, directory: Path, name: str, shard_bytes: int) -> None:
        self.directory, self.name, self.shard_bytes = directory, name, shard_bytes
        self.shards: list[dict[str, Any]] = []
        """Name and size in bytes of every closed shard."""
        self.frames = 0
        self._index = IndexWriter(directory / f"{name}.npy", FRAME_RECORD)
        self._tar: tarfile.TarFile | None = None

    def add(self, jpeg: bytes, *, video_id: str, number: int, record: np.void | Mapping[str, Any]) -> None:
        """Append one frame, with the fields RECORDED of `record`."""
        padded = -(-len(jpeg) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        if self._tar is not None:
            end = self._tar.offset + tarfile.BLOCKSIZE + padded + 2 * tarfile.BLOCKSIZE
            if -(-end // tarfile.RECORDSIZE) * tarfile.RECORDSIZE > self.shard_bytes:
                self._close_shard()
        if self._tar is None:
            self._tar = tarfile.open(self._path(), "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        member = tarfile.TarInfo(member_name(member_folder(video_id), number))
        member.size = len(jpeg)
        offset = self._tar.offset + tarfile.BLOCKSIZE
        self._tar.addfile(member, io.BytesIO(jpeg))
        values = (record[name] for name in RECORDED)
        self._index.append(np.array((len(self.shards), offset, len(jpeg), *values), FRAME_RECORD))
        self.frames += 1

    def close(self) -> None:
        if self._tar is not None:
            self._close_shard()
        self._index.close()

    def _path(self) -> Path:
        return self.directory / f"{self.name}-{len(self.shards):06d}.tar"

    def _close_shard(self) -> None:
        assert self._tar is not None
        self._tar.close()
        self._tar = None
        self.shards.append({"name": self._path().name, "bytes": self._path().stat().st_size})


class ShardReader:
    """Reads JPEG bytes by row of `{name}.npy`; thread-safe.

    It keeps reading the folder that it opened even if another ingest replaces it by a new one, to whose shards the rows
    do not apply. Once the old folder's shards are deleted, reading raises UserError.
    """

    def __init__(self, directory: Path, name: str, shards: list[str]) -> None:
        self.directory, self.shards = directory, shards
        self._folder = os.open(directory, os.O_RDONLY)
        self.records: np.ndarray = np.load(directory / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        self._descriptors: dict[int, int] = {}
        self._lock = threading.Lock()

    def jpeg(self, row: int) -> bytes:
        record = self.records[row]
        number, size, offset = int(record["shard"]), int(record["size"]), int(record["offset"])
        descriptor = self._descriptors.get(number)
        if descriptor is not None:
            return os.pread(descriptor, size, offset)
        try:
            descriptor = os.open(self.shards[number], os.O_RDONLY, dir_fd=self._folder)
        except FileNotFoundError:
            raise UserError(
                f"{self.directory / self.shards[number]} was replaced or removed while it was being read; "
                "run the command again."
            ) from None
        try:
            data = os.pread(descriptor, size, offset)
        finally:
            # The first shards used stay open and are never closed early, so no thread can lose a file it is reading.
            with self._lock:
                keep = number not in self._descriptors and len(self._descriptors) < MAX_OPEN_SHARDS
                if keep:
                    self._descriptors[number] = descriptor
            if not keep:
                os.close(descriptor)
        return data

    def close(self) -> None:
        with self._lock:
            for descriptor in self._descriptors.values():
                os.close(descriptor)
            self._descriptors.clear()
            if self._folder >= 0:
                os.close(self._folder)
                self._folder = -1


class FrameShards:
    """Random access to the frames of one split of a finished ingest."""

    def __init__(self, path: Path, split: str, manifest: Mapping[str, Any]) -> None:
        self.path, self.split, self.manifest = path, split, manifest
        self._videos = [video["id"] for video in manifest["videos"]]
        self.reader = ShardReader(path, split, [shard["name"] for shard in manifest["splits"][split]["shards"]])

    @classmethod
    def open(cls, path: str | Path, split: str = "train") -> FrameShards:
        """Raises UserError if `path` is not a shard folder, is unfinished or inconsistent, or the split is empty."""
        if split not in SPLITS:
            raise unknown_name("split", split, SPLITS)
        path = Path(path)
        manifest = read_manifest(path)
        if manifest["splits"][split]["frames"] == 0:
            raise UserError(f"{path} has no {split} frames; ingest more videos, or set validation_share above 0.")
        check_shard_files(path, manifest, split)
        return cls(path, split, manifest)

    def __len__(self) -> int:
        return len(self.reader.records)

    def image(self, i: int) -> np.ndarray:
        """uint8 (h, w, 3). Raises CorruptImage if the bytes are no longer a JPEG."""
        return decode_jpeg(self.reader.jpeg(i), self.id(i))

    def size(self, i: int) -> tuple[int, int]:
        """Height and width in pixels, from the index."""
        record = self.reader.records[i]
        return int(record["height"]), int(record["width"])

    def reduced(self, i: int, by: int) -> np.ndarray:
        """uint8 (ceil(h / by), ceil(w / by), 3), decoded at 1/`by` (1, 2, 4, 8) of the size. Raises CorruptImage."""
        height, width = (-(-side // by) for side in self.size(i))
        image = decode_jpeg(self.reader.jpeg(i), self.id(i), (0, 0) if by == 1 else (height, width))
        if image.shape[:2] != (height, width):
            raise CorruptImage(f"{self.id(i)}: the image does not match the index")
        return image

    def id(self, i: int) -> str:
        """`<path of the video relative to the source>@<seconds>`."""
        record = self.reader.records[i]
        return f"{self._videos[record['video']]}@{record['time_s']:.3f}"

    def close(self) -> None:
        self.reader.close()


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a finished ingest. Raises UserError if there is none, saying what `path` is."""
    if not (path / MANIFEST).is_file():
        if ingest_work_directory(path).is_dir():
            raise UserError(
                f"The ingest into {path} has not finished; run the same `pixio-robot ingest` command again to continue."
            )
        raise UserError(
            f"{path} is not a folder of frame shards: it has no {MANIFEST}. Create one with `pixio-robot ingest`."
        )
    manifest = read_json(path / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
        raise UserError(f"{path / MANIFEST} is not a manifest of frame shards, as written by `pixio-robot ingest`.")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path / MANIFEST} has format_version {manifest.get('format_version')}, but this version reads "
            f"{FORMAT_VERSION}; delete {path} and run the ingest again."
        )
    return manifest


def check_shard_files(path: Path, manifest: Mapping[str, Any], split: str) -> None:
    """Compare the index and the shard sizes with the manifest: a cheap check for truncated and mixed-up copies."""
    again = "copy the folder again, or delete it and run the ingest again"
    entry = manifest["splits"][split]
    try:
        records = np.load(path / f"{split}.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"The index {path / f'{split}.npy'} cannot be read ({error}); {again}.") from error
    if records.dtype != FRAME_RECORD or len(records) != entry["frames"]:
        raise UserError(f"The index {path / f'{split}.npy'} does not match {path / MANIFEST}; {again}.")
    for shard in entry["shards"]:
        file = path / shard["name"]
        size = file.stat().st_size if file.is_file() else None
        if size != shard["bytes"]:
            there = "is missing" if size is None else f"has {size} bytes"
            raise UserError(f"The index does not match {file}: it {there}, expected {shard['bytes']} bytes; {again}.")
