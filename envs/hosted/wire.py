"""Messages between two Pythons, whose versions and whose NumPys may differ: JSON, then the bytes of its arrays.

Nothing is unpickled on either side.
"""

from __future__ import annotations

import json
import struct
from typing import Any, BinaryIO

import numpy as np

_SIZES = struct.Struct("<QQ")
"""Number of bytes of the JSON and of the arrays."""
_ARRAY = "__array__"


def send(stream: BinaryIO, message: Any) -> None:
    """Write nested dicts (with string keys), lists, tuples, text, numbers and arrays. Raises TypeError for others."""
    arrays: list[bytes] = []

    def place(value: Any) -> Any:
        if isinstance(value, np.generic):
            return value.item()
        if not isinstance(value, np.ndarray) or value.dtype.hasobject:
            raise TypeError(f"{type(value).__name__} cannot be sent to another Python: {value!r}")
        arrays.append(value.tobytes())
        return {_ARRAY: [value.dtype.str, list(value.shape)]}

    text = json.dumps(message, default=place).encode()
    content = b"".join(arrays)
    stream.write(_SIZES.pack(len(text), len(content)))
    stream.write(text)
    stream.write(content)
    stream.flush()


def receive(stream: BinaryIO) -> Any:
    """The next message; tuples arrive as lists, scalars of NumPy as numbers. Raises EOFError at the end."""
    text_size, content_size = _SIZES.unpack(_exactly(stream, _SIZES.size))
    text, content = _exactly(stream, text_size), _exactly(stream, content_size)
    offset = 0

    def take(found: dict[str, Any]) -> Any:
        nonlocal offset
        if found.keys() != {_ARRAY}:
            return found
        dtype, shape = np.dtype(found[_ARRAY][0]), found[_ARRAY][1]
        count = int(np.prod(shape, dtype=np.int64))
        array = np.frombuffer(content, dtype, count, offset).reshape(shape).copy()
        offset += array.nbytes
        return array

    return json.loads(text, object_hook=take)


def _exactly(stream: BinaryIO, size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise EOFError
    return content
