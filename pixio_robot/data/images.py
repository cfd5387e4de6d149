"""Encoding and decoding single images, uint8 (h, w, 3) RGB. No torch here: decoder processes import this module."""

from __future__ import annotations

import io
import warnings

import cv2
import numpy as np
import simplejpeg
from PIL import Image

LARGEST_SIDE, MOST_PIXELS = 16384, 8192 * 8192


class CorruptImage(ValueError):
    """An image cannot be read. The message says which and why; other images of its source may be fine."""


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    """JPEG with 4:2:0 chroma subsampling, as video usually has anyway."""
    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(image), quality=quality, colorspace="RGB", colorsubsampling="420"
    )


def decode_jpeg(data: bytes, name: str, at_least: tuple[int, int] = (0, 0)) -> np.ndarray:
    """uint8 (h, w, 3). Raises CorruptImage naming `name`.

    With `at_least` (height, width), decodes at the smallest DCT scale that gives at least this size, which saves most
    of the work; (0, 0) decodes at full size.
    """
    height, width = at_least
    try:
        return simplejpeg.decode_jpeg(data, colorspace="RGB", min_height=height, min_width=width)
    except ValueError as error:
        raise CorruptImage(f"{name}: {error}") from error


def decode_photo(data: bytes, name: str) -> np.ndarray:
    """Decode any still image that OpenCV reads, applying its EXIF orientation. Raises CorruptImage naming `name`."""
    if not data:
        raise CorruptImage(f"{name}: zero bytes")
    _refuse_bombs(data, name)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise CorruptImage(f"{name}: {error}") from error
    if image is None:
        raise CorruptImage(f"{name}: not a readable image")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def absurd_size(height: int, width: int) -> bool:
    """Whether an image is larger than any camera's, so that decoding it would only exhaust memory."""
    return max(width, height) > LARGEST_SIDE or width * height > MOST_PIXELS


def _refuse_bombs(data: bytes, name: str) -> None:
    """Check the declared size before a decoder allocates it; formats unknown to PIL are left to OpenCV."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            width, height = Image.open(io.BytesIO(data)).size
    except Image.DecompressionBombError:
        raise CorruptImage(f"{name}: absurd dimensions") from None
    except (OSError, ValueError, SyntaxError):
        return
    if absurd_size(height, width):
        raise CorruptImage(f"{name}: absurd dimensions {width}x{height}")


def shrunk_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Height and width after shrinking the short side to `short_side` pixels; never enlarges; 0 keeps the size."""
    if short_side == 0 or min(height, width) <= short_side:
        return height, width
    scale = short_side / min(height, width)
    return max(short_side, round(height * scale)), max(short_side, round(width * scale))


def shrink_short_side(image: np.ndarray, short_side: int) -> np.ndarray:
    """Shrink to `shrunk_size` by area averaging."""
    height, width = shrunk_size(image.shape[0], image.shape[1], short_side)
    if (height, width) == image.shape[:2]:
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
