"""Wire format: msgpack maps that contain numpy arrays. Nothing is ever unpickled.

Server, on connecting  {"protocol", "spec", "cameras", "observation_steps", "execute", "ensemble_weight",
                        "quaternions", "tasks", "state_range"}
Client                 {"images": {camera: uint8 (t, h, w, 3)}, "state": float32 (t, s), "seed", "step", "task"}
Server                 {"actions": float32 (n, a), "milliseconds"} or {"error"}

t is the policy's number of observation steps, the newest frame last. `task` is one of `tasks`, unless that is empty.
`state_range` is the minimum and maximum state in the demonstrations, [[s numbers], [s numbers]], or null for a policy
that does not use the state.
n >= `execute`, the number of actions that are carried out; with `ensemble_weight` the client averages all actions that
it has received for a step, `quaternions` (the first of the four columns of each) as rotations.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pixio_robot.errors import UserError

PROTOCOL = 2
LARGEST_MESSAGE = 64 * 2**20
"""Bytes that both sides accept; a server accepts more if its policy's observations are larger."""
ENCODABLE_INTEGERS = range(-(2**63), 2**64)
"""What msgpack can encode."""
MISSING_PACKAGES = (
    "Serving needs msgpack and websockets: `pip install msgpack websockets` (pixio-robot's extra `serve`). On a "
    "robot's computer the client alone is enough: `pip install ./client` in a clone of pixio-robot installs all three."
)
_ARRAY = 1
_DTYPES = ("|u1", "<f4")


def _msgpack() -> Any:
    try:
        import msgpack
    except ImportError as error:
        raise UserError(MISSING_PACKAGES) from error
    return msgpack


def pack(message: dict[str, Any]) -> bytes:
    """Encode a message. Arrays must be uint8 or float32."""
    msgpack = _msgpack()

    def array(value: Any) -> Any:
        if not isinstance(value, np.ndarray) or value.dtype.str not in _DTYPES:
            raise TypeError(f"{type(value).__name__} {getattr(value, 'dtype', '')} cannot be sent")
        content = msgpack.packb([value.dtype.str, list(value.shape), value.tobytes()])
        return msgpack.ExtType(_ARRAY, content)

    return msgpack.packb(message, default=array)


def unpack(content: bytes | str) -> dict[str, Any]:
    """Inverse of `pack`; the arrays are read-only. Raises UserError for input that `pack` cannot have produced."""
    msgpack = _msgpack()

    def extension(code: int, data: bytes) -> Any:
        dtype, shape, raw = msgpack.unpackb(data)
        if code != _ARRAY or dtype not in _DTYPES:
            raise ValueError(f"unknown content {code} {dtype}")
        return np.frombuffer(raw, dtype).reshape(shape)

    try:
        if isinstance(content, str):
            raise TypeError("text instead of bytes")
        message = msgpack.unpackb(content, ext_hook=extension)
        if not isinstance(message, dict):
            raise TypeError("not a map")
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise UserError(f"The message does not follow pixio-robot's serving protocol ({error}).") from error
    return message
