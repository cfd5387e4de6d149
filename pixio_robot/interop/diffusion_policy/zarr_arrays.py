"""Arrays of Zarr format 2, read and written a few rows at a time, independently of the installed zarr version.

In Zarr a missing chunk means the fill value, so a damaged store would read as black frames and zeros: here a missing
chunk is an error unless the caller allows it.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np

from pixio_robot.errors import UserError
from pixio_robot.interop.diffusion_policy.codecs import decode, encode
from pixio_robot.interop.diffusion_policy.container import Container, Write

NODE = ".zarray"
_SEPARATORS = (".", "/")


class ArrayReader:
    """Reads the array `key`; `where` names its store in error messages."""

    def __init__(self, container: Container, key: str, where: str, *, fill_missing: bool = False) -> None:
        """Raises UserError if there is no such array, or if it cannot be read here."""
        self._container, self._key, self._name, self._fill_missing = container, key, f"{key} in {where}", fill_missing
        content = container.read(f"{key}/{NODE}")
        if content is None:
            raise UserError(f"There is no array {key} in {where}.")
        try:
            node: dict[str, Any] = json.loads(content)
            self.shape = tuple(int(size) for size in node["shape"])
            self.dtype = np.dtype(node["dtype"])
            self._chunks = tuple(int(size) for size in node["chunks"])
            self._order, self._fill, self._compressor = node["order"], node["fill_value"], node["compressor"]
            self._filters = node.get("filters") or []
            self._separator = node.get("dimension_separator", ".")
            if self._separator not in _SEPARATORS:
                raise ValueError(f"dimension_separator is {self._separator!r}")
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self._name}: its {NODE} is damaged ({error!r}).") from error
        if self.dtype.hasobject or not self.shape or len(self._chunks) != len(self.shape) or min(self._chunks) < 1:
            raise UserError(
                f"{self._name} has dtype {self.dtype}, shape {self.shape} and chunks {self._chunks}, "
                "and is not a numeric array with a time axis."
            )
        self._kept: tuple[int, np.ndarray] | None = None

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows start..stop, (stop - start, ...). Raises UserError naming a chunk that is missing or damaged."""
        length = self._chunks[0]
        try:
            parts = [
                self._block(number)[max(start - number * length, 0) : stop - number * length]
                for number in range(start // length, -(-stop // length))
            ]
            return np.concatenate(parts) if parts else np.empty((0, *self.shape[1:]), self.dtype)
        except (MemoryError, OverflowError, ValueError) as error:  # ValueError: beyond what NumPy can address
            raise UserError(
                f"{self._name} has shape {self.shape} and chunks {self._chunks}, which do not fit into memory: {error}."
            ) from error

    def _block(self, number: int) -> np.ndarray:
        """All columns of one row of chunks; the last one is cached, because episodes are read in order."""
        if self._kept is None or self._kept[0] != number:
            block = np.empty((self._chunks[0], *self.shape[1:]), self.dtype)
            counts = [-(-size // chunk) for size, chunk in zip(self.shape[1:], self._chunks[1:], strict=True)]
            for chunk_index in itertools.product(*map(range, counts)):
                chunk = self._chunk((number, *chunk_index))
                corner = [
                    slice(i * size, (i + 1) * size) for i, size in zip(chunk_index, self._chunks[1:], strict=True)
                ]
                target = block[(slice(None), *corner)]
                target[...] = chunk[tuple(slice(size) for size in target.shape)]
            self._kept = (number, block)
        return self._kept[1]

    def _chunk(self, chunk_index: tuple[int, ...]) -> np.ndarray:
        name = self._separator.join(map(str, chunk_index))
        content = self._container.read(f"{self._key}/{name}")
        if content is None:
            if not self._fill_missing:
                raise UserError(
                    f"{self._name}: chunk {name} is missing. If it was omitted because all its values equal the fill "
                    f"value {self._fill!r}, set fill_missing=true."
                )
            return np.full(self._chunks, 0 if self._fill is None else self._fill, self.dtype)
        try:
            decoded = decode(self._compressor, content)
            for config in reversed(self._filters):
                decoded = decode(config, decoded)
            if isinstance(decoded, np.ndarray) and decoded.dtype == self.dtype:
                flat = decoded.reshape(-1)
            else:
                flat = np.frombuffer(decoded, self.dtype)
            return flat.reshape(self._chunks, order=self._order)
        except UserError:
            raise
        except Exception as error:  # each codec raises its own kind
            raise UserError(f"{self._name}: chunk {name} is damaged ({error!r}).") from error


class ArrayWriter:
    """Writes one array of `shape`: append until it is full, then `close`. Chunks are `chunk_rows` whole rows."""

    def __init__(
        self, write: Write, key: str, shape: tuple[int, ...], dtype: Any, chunk_rows: int, compressor: dict[str, Any]
    ) -> None:
        self._write, self._key, self._shape = write, key, shape
        self._compressor = compressor
        # Little-endian on every machine, as declared in the array's metadata.
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._chunk = np.zeros((chunk_rows, *shape[1:]), self._dtype)
        self._written = self._filled = 0
        node = {
            "zarr_format": 2,
            "shape": list(shape),
            "chunks": list(self._chunk.shape),
            "dtype": self._dtype.str,
            "order": "C",
            "fill_value": False if self._dtype.kind == "b" else 0,
            "compressor": compressor,
            "filters": None,
        }
        write_json(write, f"{key}/{NODE}", node)

    def append(self, rows: np.ndarray) -> None:
        """Append rows (n, ...)."""
        while len(rows):
            count = min(len(rows), len(self._chunk) - self._filled)
            self._chunk[self._filled : self._filled + count] = rows[:count]
            self._filled += count
            rows = rows[count:]
            if self._filled == len(self._chunk):
                self._flush()

    def close(self) -> None:
        """Pad the last chunk with zeros and write it."""
        count = self._written * len(self._chunk) + self._filled
        if count != self._shape[0]:
            raise ValueError(f"{self._key} was declared with {self._shape[0]} rows, but {count} were written.")
        if self._filled:
            self._chunk[self._filled :] = 0
            self._flush()

    def _flush(self) -> None:
        name = ".".join(map(str, (self._written, *([0] * (self._chunk.ndim - 1)))))
        self._write(f"{self._key}/{name}", encode(self._compressor, self._chunk))
        self._written += 1
        self._filled = 0


def write_json(write: Write, key: str, value: Any) -> None:
    write(key, json.dumps(value, indent=4, allow_nan=False).encode())
