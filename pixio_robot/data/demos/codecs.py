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
        # Without chroma subsampling, which would blur the thin coloured objects that robots handle.
        return [imagecodecs.zarr.Jpeg(level=JPEG_QUALITY, subsampling="444")]
    return [BytesCodec()] if name == RAW else [BytesCodec(), ZstdCodec(level=ZSTD_LEVEL)]


def _require_imagecodecs(name: str) -> None:
    try:
        import imagecodecs  # noqa: F401
    except ImportError:
        raise UserError(f"The image codec {name!r} needs pip install 'pixio-robot[formats]'.") from None


def decode_frame(name: str, payload: bytes, shape: Sequence[int]) -> np.ndarray:
    """Decode one frame, uint8 (h, w, 3). Raises ValueError or RuntimeError if it cannot be decoded to this shape."""
    if name == JPEG:
        import simplejpeg

        frame = simplejpeg.decode_jpeg(payload)
    elif name == JPEGXL:
        _require_imagecodecs(name)
        import imagecodecs

        frame = imagecodecs.jpegxl_decode(payload, numthreads=1)
    else:
        from numcodecs.zstd import Zstd

        raw = Zstd().decode(payload)
        if len(raw) != math.prod(shape):
            raise ValueError(f"{len(raw)} bytes instead of {math.prod(shape)}")
        frame = np.frombuffer(raw, np.uint8).reshape(shape)
    if frame.shape != tuple(shape):
        raise ValueError(f"a frame of {frame.shape} instead of {tuple(shape)}")
    return frame
