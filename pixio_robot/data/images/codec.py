"""Encoding and decoding single images, uint8 (h, w, 3) RGB. No torch here: decoder processes import this module."""

from __future__ import annotations

import io
import struct
import warnings

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageOps

MAX_SIDE, MAX_PIXELS = 16384, 8192 * 8192

TRANSPARENT_BACKGROUND = (128, 128, 128)
"""Colour shown through transparent pixels. What editors keep beneath them is often what was cut out; mid grey is far
from both ends, so that curation does not take the picture for an over- or underexposed one."""
_ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")
_DEEP_GREY = {"I": "16 or 32 bits", "F": "32-bit floating point"}
"""PIL's modes of one channel with more than 8 bits; the variants of 16 bits start with `I;16`."""


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
        full_height, full_width = map(int, simplejpeg.decode_jpeg_header(data)[:2])
        if is_absurd_size(full_height, full_width):
            raise CorruptImage(f"{name}: absurd dimensions {full_width}x{full_height}")
        return simplejpeg.decode_jpeg(data, colorspace="RGB", min_height=height, min_width=width)
    except CorruptImage:
        raise
    except ValueError as error:
        raise CorruptImage(f"{name}: {error}") from error


def decode_photo(data: bytes, name: str) -> np.ndarray:
    """Decode any still image that OpenCV reads, applying its EXIF orientation; transparent pixels become mid grey.

    Raises CorruptImage naming `name`, also for depth maps: in one channel of more than 8 bits, such as millimetres, 8
    bits would keep only the coarse ones and show an almost black picture.
    """
    if not data:
        raise CorruptImage(f"{name}: zero bytes")
    header = _open_header(data, name)
    if header is not None:
        if bits := _bits_of_deep_grey(header.mode):
            raise CorruptImage(f"{name}: a depth map or other measurement, not a picture ({bits}, one channel)")
        if header.mode in _ALPHA_MODES or "transparency" in header.info:
            return _without_transparency(header, name)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise CorruptImage(f"{name}: {error}") from error
    if image is None:
        raise CorruptImage(f"{name}: not a readable image")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _bits_of_deep_grey(mode: str) -> str | None:
    return "16 bits" if mode.startswith("I;16") else _DEEP_GREY.get(mode)


def _without_transparency(image: Image.Image, name: str) -> np.ndarray:
    """Show the image before a plain ground. By PIL, because OpenCV ignores the EXIF orientation if it keeps alpha."""
    try:
        shown = ImageOps.exif_transpose(image).convert("RGBA")
    except (OSError, ValueError, SyntaxError, LookupError, TypeError, EOFError, struct.error) as error:
        raise CorruptImage(f"{name}: {error}") from error
    return np.array(Image.alpha_composite(Image.new("RGBA", shown.size, TRANSPARENT_BACKGROUND), shown).convert("RGB"))


def is_absurd_size(height: int, width: int) -> bool:
    """Whether an image is larger than any camera's, so that decoding it would only exhaust memory."""
    return max(width, height) > MAX_SIDE or width * height > MAX_PIXELS


def _open_header(data: bytes, name: str) -> Image.Image | None:
    """The image with its pixels not yet decoded; None for formats unknown to PIL, which are left to OpenCV. Raises
    CorruptImage if the declared size is absurd, before a decoder allocates it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError:
        raise CorruptImage(f"{name}: absurd dimensions") from None
    except (OSError, ValueError, SyntaxError):
        return None
    width, height = image.size
    if is_absurd_size(height, width):
        raise CorruptImage(f"{name}: absurd dimensions {width}x{height}")
    return image


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
