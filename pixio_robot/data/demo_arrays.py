"""The arrays of one episode: standard Zarr v3 to every tool, and one file each to us.

Images: one shard an episode, one inner chunk a frame, `bytes` + `crc32c`, so frame i lies at a fixed stride.
The rest: one chunk with a checksum. zarr-python's 2-5 ms a read is why frames are read past it (docs/design.md).
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import google_crc32c
import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

from pixio_robot.errors import UserError

CRC_BYTES = 4
_INDEX_ENTRY = 16  # offset and length of one inner chunk, two little-endian uint64 (Zarr v3 sharding spec)


class DamagedArray(UserError):
    """Bytes on the disk are not what was written."""


def write_frames(group: zarr.Group, name: str, frames: np.ndarray) -> None:
    """Add uint8 (n, h, w, 3) as one shard of n checksummed frames."""
    # Chunks that hold only the fill value must be written too: a missing chunk is then always damage.
    array = group.create_array(
        name,
        shape=frames.shape,
        dtype=frames.dtype,
        chunks=frames.shape,
        serializer=ShardingCodec(chunk_shape=(1, *frames.shape[1:]), codecs=[BytesCodec(), Crc32cCodec()]),
        filters=None,
        compressors=None,
        config={"write_empty_chunks": True},
    )
    array[...] = frames


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
    """`zarr.json` must describe the array that the episode and the DemoSpec ask for."""
    try:
        metadata = json.loads((directory / "zarr.json").read_text())
        found = metadata["data_type"], tuple(metadata["shape"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedArray(f"{directory} is not a readable Zarr array ({error!r}).") from error
    if found != (dtype, shape):
        raise DamagedArray(f"{directory} is damaged: it claims to be {found[0]} {found[1]} instead of {dtype} {shape}.")


def _chunk_file(directory: Path, dimensions: int) -> Path:
    return directory.joinpath("c", *["0"] * dimensions)


def read_values(directory: Path, shape: tuple[int, ...]) -> np.ndarray:
    """A float32 array of that shape, its checksum verified. Raises DamagedArray."""
    _check_metadata(directory, shape, "float32")
    try:
        raw = _chunk_file(directory, len(shape)).read_bytes()
    except OSError as error:
        raise DamagedArray(f"{directory} misses its data ({error}).") from error
    payload, checksum = raw[:-CRC_BYTES], raw[-CRC_BYTES:]
    if len(payload) != 4 * math.prod(shape) or google_crc32c.value(payload) != int.from_bytes(checksum, "little"):
        raise DamagedArray(f"{directory} is damaged: its checksum does not fit.")
    return np.frombuffer(payload, "<f4").reshape(shape)


class FrameFile:
    """The frames of one camera in one episode, read at their places in the shard file."""

    def __init__(self, directory: Path, shape: tuple[int, ...]) -> None:
        """`shape` (n, h, w, 3) is what the episode and the DemoSpec ask for. Raises DamagedArray."""
        self.directory = directory
        self.shape = shape
        self._path = _chunk_file(directory, len(shape))
        self._frame_bytes = math.prod(shape[1:])
        self._stride = self._frame_bytes + CRC_BYTES
        _check_metadata(directory, shape, "uint8")
        self._check_index()

    def _check_index(self) -> None:
        """The offsets that `read` computes must be those in the shard's index."""
        count = self.shape[0]
        index_bytes = count * _INDEX_ENTRY
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                if size != count * self._stride + index_bytes + CRC_BYTES:
                    raise DamagedArray(
                        f"{self.directory} is damaged: its file has {size} bytes, not what {count} frames take."
                    )
                file.seek(count * self._stride)
                raw = file.read(index_bytes + CRC_BYTES)
        except OSError as error:
            raise DamagedArray(f"{self.directory} misses its data ({error}).") from error
        if google_crc32c.value(raw[:index_bytes]) != int.from_bytes(raw[index_bytes:], "little"):
            raise DamagedArray(f"{self.directory} is damaged: the checksum of its index does not fit.")
        index = np.frombuffer(raw[:index_bytes], "<u8").reshape(count, 2)
        order = np.arange(count, dtype=np.uint64) * np.uint64(self._stride)
        if not (np.array_equal(index[:, 0], order) and (index[:, 1] == self._stride).all()):
            raise DamagedArray(f"{self.directory} is not laid out as pixio-robot writes it.")

    def read(self, start: int, stop: int) -> np.ndarray:
        """Frames start..stop as uint8 (n, h, w, 3), not to be written to.

        Each one's checksum is verified: at 84 px that takes 1 us beside the 30 us of the read itself.
        """
        try:
            with self._path.open("rb", buffering=0) as file:
                raw = os.pread(file.fileno(), (stop - start) * self._stride, start * self._stride)
        except OSError as error:
            raise DamagedArray(f"{self.directory} misses its data ({error}).") from error
        if len(raw) != (stop - start) * self._stride:
            raise DamagedArray(f"{self.directory} is damaged: it ends before frame {stop}.")
        rows = np.frombuffer(raw, np.uint8).reshape(stop - start, self._stride)
        checksums = rows[:, self._frame_bytes :].copy().view("<u4")[:, 0].tolist()
        for number, (row, checksum) in enumerate(zip(rows, checksums, strict=True), start):
            # The extension takes any contiguous buffer, though its annotation names bytes.
            if google_crc32c.value(row[: self._frame_bytes]) != checksum:  # pyright: ignore[reportArgumentType]
                raise DamagedArray(f"{self.directory} is damaged: the checksum of frame {number} does not fit.")
        return rows[:, : self._frame_bytes].reshape(stop - start, *self.shape[1:])
