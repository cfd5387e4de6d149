"""The compressors of Zarr v2 chunks: numcodecs' own, and images through imagecodecs (extra `formats`).

diffusion_policy registers classes of its own under ids like `imagecodecs_jpeg2k`. Their stored settings differ from
version to version, and decoding needs none of them, so such chunks are decoded directly and not through a registry.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pixio_robot.errors import UserError, unknown_name

PREFIX = "imagecodecs_"
IMAGE_CODECS = ("jpeg2k", "jpegxl", "jpeg", "png", "webp", "avif")
BLOSC: dict[str, Any] = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 0, "blocksize": 0}
"""What diffusion_policy compresses everything with that is no image."""
WRITABLE: dict[str, dict[str, Any]] = {
    "blosc": BLOSC,
    # The settings that diffusion_policy and UMI write with.
    "jpeg2k": {"id": f"{PREFIX}jpeg2k", "level": 50},
    "jpegxl": {"id": f"{PREFIX}jpegxl", "effort": 3, "distance": 0.3, "decodingspeed": 1},
}
LOSSY = ("jpeg2k", "jpegxl")
_EXECUTES = "pickle"
"""numcodecs knows it too, and older releases unpickle what a stranger wrote."""


def check_writable(name: str) -> dict[str, Any]:
    """The compressor's stored form. Raises UserError for an unknown one, and where its package is missing."""
    if name not in WRITABLE:
        raise unknown_name("codec", name, WRITABLE)
    if name in LOSSY:
        _imagecodecs(f"{PREFIX}{name}")
    return WRITABLE[name]


def decode(compressor: dict[str, Any] | None, content: bytes) -> Any:
    """bytes, or an array where the codec knows the shape. Raises UserError for a codec that is unknown or could execute
    code, or a missing extra, and whatever the codec raises for damaged content."""
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
    """`chunk` contiguous; one image (1, h, w, 3) for the image codecs."""
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
            "The store is compressed with pickle, which can execute any code when it is read: have it written with "
            "another compressor, such as blosc."
        )
    try:
        return numcodecs.get_codec(dict(config))
    except (UnknownCodecError, ValueError, TypeError) as error:
        raise UserError(f"The store is compressed with {config!r}, which numcodecs does not know ({error}).") from error


def _imagecodecs(name: str) -> Any:
    try:
        import imagecodecs
    except ImportError:
        raise UserError(f"Images coded with {name} need pip install 'pixio-robot[formats]'.") from None
    return imagecodecs
