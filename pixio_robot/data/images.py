"""Single images between bytes and arrays: uint8 (h, w, 3), RGB. No torch here: decoder processes import this."""

from __future__ import annotations

import io
import warnings

import cv2
import numpy as np
import simplejpeg
from PIL import Image

LARGEST_SIDE, MOST_PIXELS = 16384, 8192 * 8192


class CorruptImage(ValueError):
    """These bytes are not a readable image. Says which one and why; the rest of its source may be fine."""


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    """JPEG with 4:2:0 chroma, what video carries anyway."""
    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(image), quality=quality, colorspace="RGB", colorsubsampling="420"
    )


def decode_jpeg(data: bytes, name: str, at_least: tuple[int, int] = (0, 0)) -> np.ndarray:
    """uint8 (h, w, 3). Raises CorruptImage naming `name`.

    With `at_least` (height, width) the DCT itself is evaluated at the smallest scale that gives no less, which saves
    most of the work; (0, 0) decodes the full size.
    """
    height, width = at_least
    try:
        return simplejpeg.decode_jpeg(data, colorspace="RGB", min_height=height, min_width=width)
    except ValueError as error:
        raise CorruptImage(f"{name}: {error}") from error


def decode_photo(data: bytes, name: str) -> np.ndarray:
    """Any still image OpenCV reads, turned upright by its EXIF orientation. Raises CorruptImage naming `name`."""
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
    """Larger than any camera's picture, so that decoding it would only fill the memory."""
    return max(width, height) > LARGEST_SIDE or width * height > MOST_PIXELS


def _refuse_bombs(data: bytes, name: str) -> None:
    """Read the declared size before a decoder allocates it; formats that PIL does not know are left to OpenCV."""
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
    """Height and width when the short side has that many pixels; never larger than they were; 0 keeps them."""
    if short_side == 0 or min(height, width) <= short_side:
        return height, width
    scale = short_side / min(height, width)
    return max(short_side, round(height * scale)), max(short_side, round(width * scale))


def shrink_short_side(image: np.ndarray, short_side: int) -> np.ndarray:
    """Area-averaged to `shrunk_size`."""
    height, width = shrunk_size(image.shape[0], image.shape[1], short_side)
    if (height, width) == image.shape[:2]:
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
