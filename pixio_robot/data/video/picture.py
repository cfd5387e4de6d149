"""From a decoded picture to an upright RGB image."""

from __future__ import annotations

import numpy as np
from av.video.frame import VideoFrame

from pixio_robot.data.images.codec import shrink_short_side, shrunk_size

# FFmpeg's AVColorSpace numbers and, for the matrices swscale knows, its SWS_CS_* numbers.
_UNSPECIFIED = 2
_MATRIX = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
_BT709, _BT601 = 1, 5
_FULL_RANGE = 2
# SWS_AREA | SWS_FULL_CHR_H_INT: without the second, swscale halves the horizontal chroma resolution of its output.
_SHRINK = 0x20 | 0x2000


def to_rgb(frame: VideoFrame, short_side: int) -> np.ndarray:
    """Convert to RGB with the frame's colour matrix and range; untagged: BT.709 from 720 lines on, else BT.601.

    Shrinks to `short_side` by area averaging in the same pass, at a third of the cost of doing it afterwards.
    """
    if frame.format.is_rgb or frame.format.name.startswith(("gray", "pal")):
        return shrink_short_side(frame.to_ndarray(format="rgb24"), short_side)
    height, width = shrunk_size(frame.height, frame.width, short_side)
    if frame.colorspace == _UNSPECIFIED:
        matrix = _BT709 if min(frame.height, frame.width) >= 720 else _BT601
    else:
        matrix = _MATRIX.get(frame.colorspace, _BT601)
    full_range = frame.color_range == _FULL_RANGE or frame.format.name.startswith("yuvj")
    rgb = frame.reformat(
        width=width,
        height=height,
        format="rgb24",
        src_colorspace=matrix,
        # RGB has no matrix, but unless the two differ, PyAV leaves swscale at its default (BT.601).
        dst_colorspace=_BT601 if matrix == _BT709 else _BT709,
        src_color_range="JPEG" if full_range else "MPEG",
        dst_color_range="JPEG",
        interpolation="BILINEAR" if (height, width) == (frame.height, frame.width) else _SHRINK,
    )
    return rgb.to_ndarray()


def upright(image: np.ndarray, frame: VideoFrame) -> np.ndarray:
    """Apply the display matrix (phones store portrait video rotated), rounded to quarter turns and flips."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return image
    # x' = a x + c y, y' = b x + d y, as native 32-bit fixed point in rows of three.
    a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(matrix), np.int32)[:5])
    if abs(a) + abs(d) < abs(b) + abs(c):
        image, right, down = image.swapaxes(0, 1), c, b
    else:
        right, down = a, d
    return np.ascontiguousarray(image[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1])
