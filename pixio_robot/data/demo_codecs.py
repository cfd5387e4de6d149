"""How the frames of a store are coded on the disk: `raw` to train from, `zstd` and `jpeg` for archives.

Every coding is standard Zarr v3 with one frame a chunk and a checksum on each. Zarr reads `raw` and `zstd` by itself,
and `jpeg` once `imagecodecs.zarr` is registered; writing `jpeg` needs that package, reading it here does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from zarr.codecs import BytesCodec, ZstdCodec

from pixio_robot.errors import UserError, unknown_name

RAW, ZSTD, JPEG = "raw", "zstd", "jpeg"
CODECS = (RAW, ZSTD, JPEG)
LOSSY = (JPEG,)
ZSTD_LEVEL = 9
JPEG_QUALITY = 95


def check_codec(name: str) -> str:
    if name not in CODECS:
        raise unknown_name("image codec", name, CODECS)
    return name


def zarr_codecs(name: str) -> list[Any]:
    """The codecs of one frame before its checksum. Raises UserError where `jpeg` cannot be written."""
    if name == JPEG:
        try:
            import imagecodecs.zarr
        except ImportError:
            raise UserError("Writing the image codec 'jpeg' needs pip install 'pixio-robot[formats]'.") from None
        # Without chroma subsampling: thin coloured objects are what robots look at.
        return [imagecodecs.zarr.Jpeg(level=JPEG_QUALITY, subsampling="444")]
    return [BytesCodec()] if name == RAW else [BytesCodec(), ZstdCodec(level=ZSTD_LEVEL)]


def decode(name: str, payload: bytes, shape: Sequence[int]) -> np.ndarray:
    """One frame, uint8 of that shape (h, w, 3). Raises ValueError for bytes that are no such frame."""
    if name == JPEG:
        import simplejpeg

        frame = simplejpeg.decode_jpeg(payload)
    else:
        from numcodecs.zstd import Zstd

        raw = Zstd().decode(payload)
        if len(raw) != math.prod(shape):
            raise ValueError(f"{len(raw)} bytes instead of {math.prod(shape)}")
        frame = np.frombuffer(raw, np.uint8).reshape(shape)
    if frame.shape != tuple(shape):
        raise ValueError(f"a frame of {frame.shape} instead of {tuple(shape)}")
    return frame
