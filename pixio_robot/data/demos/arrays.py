"""The arrays of one episode: standard Zarr v3 to other tools, one file per array to this reader.

Images: one shard per episode, one inner chunk per frame with `crc32c`. Raw frames lie at a fixed stride, encoded ones
(`codecs`) at the offsets in the shard's index. Other arrays: one chunk with a checksum. Frames are read without
zarr-python, which takes 2-5 ms per read (docs/design.md).
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import google_crc32c
import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ShardingCodec

from pixio_robot.data.demos.codecs import RAW, decode_frame, encode_frame, zarr_codecs
from pixio_robot.errors import UserError

CRC_BYTES = 4
_WRITE_BUFFER = 1 << 18
_MAX_BUFFERS_PER_READ = 1024  # buffers per preadv: Linux's IOV_MAX
_INDEX_ENTRY = 16  # offset and length of one inner chunk, two little-endian uint64 (Zarr v3 sharding spec)


class CorruptArray(UserError):
    """The bytes on disk are not what was written."""


@contextlib.contextmanager
def _os_errors_as_corrupt_array(directory: Path) -> Iterator[None]:
    """Turn an OSError while reading the array's data into CorruptArray."""
    try:
        yield
    except OSError as error:
        raise _unreadable(directory, error) from error


def _unreadable(directory: Path, error: OSError) -> CorruptArray:
    return CorruptArray(f"The data of {directory} cannot be read ({error}).")


def write_frames(group: zarr.Group, path: Path, name: str, frames: np.ndarray, codec: str = RAW) -> None:
    """Add uint8 (n, h, w, 3) to the group at `path` as one shard of n checksummed frames."""
    group.create_array(
        name,
        shape=frames.shape,
        dtype=frames.dtype,
        chunks=frames.shape,
        serializer=ShardingCodec(chunk_shape=(1, *frames.shape[1:]), codecs=[*zarr_codecs(codec), Crc32cCodec()]),
        filters=None,
        compressors=None,
    )
    shard = _chunk_file(path / name, frames.ndim)
    shard.parent.mkdir(parents=True)
    offset, index = 0, np.empty((len(frames), 2), "<u8")
    # Written here because zarr-python takes 0.1 ms per frame beyond the work itself.
    with shard.open("xb", _WRITE_BUFFER) as file:
        for number, frame in enumerate(frames):
            payload = encode_frame(codec, np.ascontiguousarray(frame))
            file.write(payload)
            file.write(_crc(payload))
            index[number] = offset, len(payload) + CRC_BYTES
            offset += len(payload) + CRC_BYTES
        file.write(index.tobytes())
        file.write(_crc(index.tobytes()))


def _crc(payload: bytes) -> bytes:
    return google_crc32c.value(payload).to_bytes(CRC_BYTES, "little")


def write_values(group: zarr.Group, name: str, values: np.ndarray) -> None:
    """Add a low-dimensional array as one checksummed chunk."""
    array = group.create_array(
        name,
        shape=values.shape,
        dtype=values.dtype,
        chunks=values.shape,
        compressors=[Crc32cCodec()],
        filters=None,
        config={"write_empty_chunks": True},
    )
    array[...] = values


def _check_metadata(directory: Path, shape: tuple[int, ...], dtype: str) -> None:
    """Check that `zarr.json` describes an array of this shape and dtype. Raises CorruptArray."""
    try:
        metadata = json.loads((directory / "zarr.json").read_text())
        stored = metadata["data_type"], tuple(metadata["shape"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptArray(f"{directory} is not a readable Zarr array ({error!r}).") from error
    if stored != (dtype, shape):
        raise CorruptArray(f"{directory} is damaged: its metadata say {stored[0]} {stored[1]}, not {dtype} {shape}.")


def _chunk_file(directory: Path, dimensions: int) -> Path:
    return directory.joinpath("c", *["0"] * dimensions)


def read_values(directory: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Read a float32 array of this shape and verify its checksum. Raises CorruptArray."""
    _check_metadata(directory, shape, "float32")
    with _os_errors_as_corrupt_array(directory):
        raw = _chunk_file(directory, len(shape)).read_bytes()
    payload, checksum = raw[:-CRC_BYTES], raw[-CRC_BYTES:]
    if len(payload) != 4 * math.prod(shape) or _crc(payload) != checksum:
        raise CorruptArray(f"{directory} is damaged: its checksum does not match.")
    return np.frombuffer(payload, "<f4").reshape(shape)


def read_stored_checksum(directory: Path, dimensions: int) -> bytes:
    """The checksum that a low-dimensional array was written with, which identifies its contents."""
    with _os_errors_as_corrupt_array(directory), _chunk_file(directory, dimensions).open("rb") as file:
        file.seek(-CRC_BYTES, os.SEEK_END)
        return file.read()


def open_frames(directory: Path, shape: tuple[int, ...], codec: str = RAW) -> FrameFile:
    """Open the frames of one camera in one episode; `shape` (n, h, w, 3) is expected. Raises CorruptArray."""
    return FrameFile(directory, shape) if codec == RAW else EncodedFrameFile(directory, shape, codec)


class FrameFile:
    """The raw frames of one camera in one episode, read directly from the shard file."""

    def __init__(self, directory: Path, shape: tuple[int, ...]) -> None:
        self.directory = directory
        self.shape = shape
        self._path = _chunk_file(directory, len(shape))
        self._frame_bytes = math.prod(shape[1:])
        _check_metadata(directory, shape, "uint8")
        self._offsets = self._places()
        self._check_layout()

    def _places(self) -> np.ndarray:
        """Offset of each frame and of the end, int64 (n + 1,): frames are stored back to back before the index."""
        count = self.shape[0]
        index_bytes = count * _INDEX_ENTRY
        with _os_errors_as_corrupt_array(self.directory), self._path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            end = size - index_bytes - CRC_BYTES
            if end <= 0:
                raise self._damaged(f"its file has {size} bytes, too few for {count} frames.")
            file.seek(end)
            raw = file.read(index_bytes + CRC_BYTES)
        if _crc(raw[:index_bytes]) != raw[index_bytes:]:
            raise self._damaged("the checksum of its index does not match.")
        # A missing chunk, which Zarr would read as zeros, has the offset 2**64 - 1 and so matches no layout.
        index = np.frombuffer(raw[:index_bytes], "<u8").reshape(count, 2).astype(np.int64)
        offsets = np.append(index[:, 0], end)
        if offsets[0] != 0 or not np.array_equal(np.diff(offsets), index[:, 1]):
            raise CorruptArray(f"{self.directory} is not laid out as pixio-robot writes it.")
        return offsets

    def _check_layout(self) -> None:
        if (np.diff(self._offsets) != self._frame_bytes + CRC_BYTES).any():
            raise CorruptArray(f"{self.directory} is not laid out as pixio-robot writes it.")

    def _damaged(self, why: str) -> CorruptArray:
        return CorruptArray(f"{self.directory} is damaged: {why}")

    def fingerprint(self) -> int:
        """The checksum of the frames' checksums, which changes with any frame. Reads 4 bytes per frame."""
        with _os_errors_as_corrupt_array(self.directory), self._path.open("rb", buffering=0) as file:
            ends = (self._offsets[1:] - CRC_BYTES).tolist()
            return google_crc32c.value(b"".join(os.pread(file.fileno(), CRC_BYTES, end) for end in ends))

    def read(self, start: int, stop: int) -> np.ndarray:
        """Frames start..stop as uint8 (n, h, w, 3)."""
        frames = np.empty((stop - start, *self.shape[1:]), np.uint8)
        self.read_into(start, frames)
        return frames

    def read_into(self, start: int, frames: np.ndarray) -> None:
        """Read the frames from `start` on into `frames`, contiguous uint8 (n, h, w, 3), without a copy.

        Verifies every frame's checksum, which at 84 px adds 1 us to the 30 us of the read itself.
        """
        rows = frames.reshape(len(frames), self._frame_bytes)
        checksums = np.empty((len(frames), CRC_BYTES), np.uint8)
        places = [part for pair in zip(rows, checksums, strict=True) for part in pair]
        if (done := self._fill(places, int(self._offsets[start]))) != rows.nbytes + checksums.nbytes:
            raise self._damaged(f"it ends before the end of frame {start + done // (self._frame_bytes + CRC_BYTES)}.")
        for number, (row, checksum) in enumerate(zip(rows, checksums.view("<u4")[:, 0].tolist(), strict=True), start):
            # The extension takes any contiguous buffer, though it is annotated as bytes.
            if google_crc32c.value(row) != checksum:  # pyright: ignore[reportArgumentType]
                raise self._damaged(f"the checksum of frame {number} does not match.")

    def _fill(self, places: Sequence[np.ndarray], offset: int) -> int:
        """Fill the buffers uint8 (k,) with the bytes from `offset` on. Returns how many there were."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY)
            try:
                return _fill_buffers(descriptor, places, offset)
            finally:
                os.close(descriptor)
        except OSError as error:  # `_os_errors_as_corrupt_array` would cost a tenth of the time
            raise _unreadable(self.directory, error) from error


def _fill_buffers(descriptor: int, places: Sequence[np.ndarray], offset: int) -> int:
    """A call may return fewer bytes than asked for, on Linux always less than 2 GiB; only 0 bytes say that the file has
    ended."""
    left, done = collections.deque(places), 0
    while left and (
        filled := os.preadv(descriptor, list(itertools.islice(left, _MAX_BUFFERS_PER_READ)), offset + done)
    ):
        done += filled
        while left and filled >= len(left[0]):
            filled -= len(left.popleft())
        if filled:
            left[0] = left[0][filled:]
    return done


class EncodedFrameFile(FrameFile):
    """The same for encoded frames, each decoded when it is read."""

    def __init__(self, directory: Path, shape: tuple[int, ...], codec: str) -> None:
        self._codec = codec
        super().__init__(directory, shape)

    def _check_layout(self) -> None:
        if (np.diff(self._offsets) <= CRC_BYTES).any():
            raise CorruptArray(f"{self.directory} is not laid out as pixio-robot writes it.")

    def read_into(self, start: int, frames: np.ndarray) -> None:
        stop = start + len(frames)
        raw = self._bytes(start, stop)
        places = (self._offsets[start : stop + 1] - self._offsets[start]).tolist()
        for number, (first, end) in enumerate(itertools.pairwise(places)):
            payload, checksum = bytes(raw[first : end - CRC_BYTES]), raw[end - CRC_BYTES : end]
            if _crc(payload) != checksum:
                raise self._damaged(f"the checksum of frame {start + number} does not match.")
            try:
                frames[number] = decode_frame(self._codec, payload, self.shape[1:])
            except (ValueError, RuntimeError) as error:
                raise self._damaged(f"frame {start + number} cannot be decoded ({error}).") from error

    def _bytes(self, start: int, stop: int) -> memoryview:
        """Frames start..stop with their checksums, as stored on disk."""
        raw = np.empty(int(self._offsets[stop] - self._offsets[start]), np.uint8)
        if self._fill([raw], int(self._offsets[start])) != len(raw):
            raise self._damaged(f"it ends before the end of frame {stop - 1}.")
        return raw.data
