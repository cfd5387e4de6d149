"""Codecs for the frames of a store on disk: `raw` for training, the others for archives.

Every codec is standard Zarr v3 with one frame per chunk, each with a checksum. Zarr itself reads `raw` and `zstd`; it
reads `jpegxl` (lossless) and `jpeg` once `imagecodecs.zarr` is registered. Writing these two requires imagecodecs, and
so does reading `jpegxl`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from zarr.codecs import BytesCodec, ZstdCodec

from pixio_robot.errors import UserError, unknown_name

RAW, ZSTD, JPEGXL, JPEG = "raw", "zstd", "jpegxl", "jpeg"
CODECS = (RAW, ZSTD, JPEGXL, JPEG)
LOSSY = (JPEG,)
ZSTD_LEVEL = 9
JPEGXL_EFFORT = 1
"""Takes 70 % of zstd's bytes on 96 px simulator images; effort 7 takes 62 % but is 4 times as slow to read."""
JPEG_QUALITY = 95
JPEG_SUBSAMPLING = "444"
"""Colours are not subsampled, which would blur the thin coloured objects that robots handle."""

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def check_codec(name: str) -> str:
    if name not in CODECS:
        raise unknown_name("image codec", name, CODECS)
    return name


def zarr_codecs(name: str) -> list[Any]:
    """The Zarr codecs of a frame, before the checksum. Raises UserError if imagecodecs is needed but missing."""
    if name in (JPEG, JPEGXL):
        _require_imagecodecs(name)
        import imagecodecs.zarr

        if name == JPEGXL:
            return [imagecodecs.zarr.Jpegxl(lossless=True, effort=JPEGXL_EFFORT, numthreads=1)]
        return [imagecodecs.zarr.Jpeg(level=JPEG_QUALITY, subsampling=JPEG_SUBSAMPLING)]
    return [BytesCodec()] if name == RAW else [BytesCodec(), ZstdCodec(level=ZSTD_LEVEL)]


def _require_imagecodecs(name: str) -> None:
    try:
        import imagecodecs  # noqa: F401
    except ImportError:
        raise UserError(f"The image codec {name!r} needs pip install 'pixio-robot[formats]'.") from None


def encode_frame(name: str, frame: np.ndarray) -> bytes:
    """Encode one frame, uint8 (h, w, 3), to the bytes that the codecs of `zarr_codecs` make of it."""
    if name == RAW:
        return frame.tobytes()
    if name == ZSTD:
        from numcodecs.zstd import Zstd

        return bytes(Zstd(ZSTD_LEVEL).encode(frame))
    _require_imagecodecs(name)
    import imagecodecs

    if name == JPEGXL:
        return bytes(imagecodecs.jpegxl_encode(frame, lossless=True, effort=JPEGXL_EFFORT, numthreads=1))
    return bytes(imagecodecs.jpeg8_encode(frame, level=JPEG_QUALITY, subsampling=JPEG_SUBSAMPLING))


def decode_frame(name: str, payload: bytes, shape: Sequence[int]) -> np.ndarray:
    """Decode one frame, uint8 (h, w, 3). Raises ValueError or RuntimeError if it cannot be decoded to this shape.

    The size that the payload states is compared first: a few bytes may claim to be many gigabytes.
    """
    if name == JPEG:
        import simplejpeg

        stated = simplejpeg.decode_jpeg_header(payload)[:2]
        if stated != tuple(shape[:2]):
            raise ValueError(f"an image of {stated} instead of {tuple(shape[:2])}")
        return simplejpeg.decode_jpeg(payload)
    if name == JPEGXL:
        _require_imagecodecs(name)
        import imagecodecs

        return imagecodecs.jpegxl_decode(payload, numthreads=1, out=np.empty(tuple(shape), np.uint8))
    from numcodecs.zstd import Zstd

    if (size := zstd_content_size(payload)) != math.prod(shape):
        raise ValueError(f"{size} bytes instead of {math.prod(shape)}")
    frame = np.empty(tuple(shape), np.uint8)
    Zstd().decode(payload, out=frame)
    return frame


def zstd_content_size(frame: bytes) -> int | None:
    """The number of bytes that a Zstandard frame says it decodes to (RFC 8878, 3.1.1.1); None if it does not say.
    Raises ValueError if it is no such frame."""
    if len(frame) < 6 or frame[:4] != _ZSTD_MAGIC:
        raise ValueError("not a Zstandard frame")
    size_flag, single_segment, dictionary_flag = frame[4] >> 6, frame[4] >> 5 & 1, frame[4] & 3
    start = 5 + (not single_segment) + (0, 1, 2, 4)[dictionary_flag]
    size_bytes = (single_segment, 2, 4, 8)[size_flag]
    content_size = int.from_bytes(frame[start : start + size_bytes], "little")
    return content_size + 256 * (size_flag == 1) if size_bytes else None
