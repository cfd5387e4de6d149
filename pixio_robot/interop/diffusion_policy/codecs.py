"""Compressors of Zarr v2 chunks: those of numcodecs, and image codecs of imagecodecs (extra `formats`).

diffusion_policy registers its own codec classes under ids like `imagecodecs_jpeg2k`. Their stored settings differ
between versions, but decoding needs none of them, so these chunks are decoded directly and not through a registry.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pixio_robot.errors import UserError, unknown_name

PREFIX = "imagecodecs_"
IMAGE_CODECS = ("jpeg2k", "jpegxl", "jpeg", "png", "webp", "avif")
BLOSC: dict[str, Any] = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 0, "blocksize": 0}
"""The compressor of diffusion_policy for everything but images."""
WRITABLE: dict[str, dict[str, Any]] = {
    "blosc": BLOSC,
    # The settings that diffusion_policy and UMI write with.
    "jpeg2k": {"id": f"{PREFIX}jpeg2k", "level": 50},
    "jpegxl": {"id": f"{PREFIX}jpegxl", "effort": 3, "distance": 0.3, "decodingspeed": 1},
}
LOSSY = ("jpeg2k", "jpegxl")
_EXECUTES = "pickle"
"""numcodecs registers it too, and its older releases unpickle untrusted data."""


def check_writable(name: str) -> dict[str, Any]:
    """The compressor's stored configuration. Raises UserError if it is unknown or its package is missing."""
    if name not in WRITABLE:
        raise unknown_name("codec", name, WRITABLE)
    if name in LOSSY:
        _imagecodecs(f"{PREFIX}{name}")
    return WRITABLE[name]


def decode(compressor: dict[str, Any] | None, content: bytes) -> Any:
    """Decode a chunk to bytes, or to an array if the codec stores the shape.

    Raises UserError for a codec that is unknown or could execute code and for a missing extra; for damaged content,
    raises whatever the codec raises.
    """
    if compressor is None:
        return content
    name = str(compressor.get("id"))
    if name.startswith(PREFIX):
        kind = name.removeprefix(PREFIX)
        if kind not in IMAGE_CODECS:
            raise unknown_name("image codec", name, [f"{PREFIX}{known}" for known in IMAGE_CODECS])
        return getattr(_imagecodecs(name), f"{kind}_decode")(content)
    return _numcodecs(compressor).decode(content)


def encode(compressor: dict[str, Any] | None, chunk: np.ndarray) -> bytes:
    """Encode a contiguous chunk; image codecs take one image (1, h, w, 3)."""
    if compressor is None:
        return chunk.tobytes()
    name = str(compressor["id"])
    if name.startswith(PREFIX):
        settings = {key: value for key, value in compressor.items() if key != "id"}
        return bytes(getattr(_imagecodecs(name), f"{name.removeprefix(PREFIX)}_encode")(chunk[0], **settings))
    return bytes(_numcodecs(compressor).encode(chunk))


def _numcodecs(config: dict[str, Any]) -> Any:
    import numcodecs
    from numcodecs.errors import UnknownCodecError

    if config.get("id") == _EXECUTES:
        raise UserError(
            "The store uses the pickle codec, which can execute arbitrary code when it is read: rewrite it with "
            "another compressor, such as blosc."
        )
    try:
        return numcodecs.get_codec(dict(config))
    except (UnknownCodecError, ValueError, TypeError) as error:
        raise UserError(
            f"The store is compressed with {config!r}, which numcodecs does not support ({error})."
        ) from error


def _imagecodecs(name: str) -> Any:
    try:
        import imagecodecs
    except ImportError:
        raise UserError(f"Images encoded with {name} need an extra: pip install 'pixio-robot[formats]'.") from None
    return imagecodecs
