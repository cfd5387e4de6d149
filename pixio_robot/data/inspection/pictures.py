"""Frames encoded for embedding in a page: contact sheets (JPEG) and films (H.264 in mp4)."""

from __future__ import annotations

import io

import cv2
import numpy as np
import simplejpeg

from pixio_robot.data.video.encode import video_writer

TILE = 96
FILM_SIDE = 128
JPEG_QUALITY = 85


def contact_sheet(frames: np.ndarray, tiles: int = 8) -> bytes:
    """JPEG of `tiles` frames (n, h, w, 3), evenly spaced from the first to the last, side by side."""
    chosen = frames[np.linspace(0, len(frames) - 1, min(tiles, len(frames))).round().astype(int)]
    row = np.concatenate([_scaled(frame, TILE) for frame in chosen], axis=1)
    return simplejpeg.encode_jpeg(np.ascontiguousarray(row), quality=JPEG_QUALITY, colorsubsampling="444")


def film(frames: np.ndarray, rate_hz: float) -> bytes:
    """Frames (n, h, w, 3) as an mp4 that browsers can play."""
    buffer = io.BytesIO()
    with video_writer(buffer, rate_hz, {"crf": "23", "threads": "1"}) as append:
        for frame in frames:
            append(_scaled(frame, FILM_SIDE, even=True))
    return buffer.getvalue()


def _scaled(frame: np.ndarray, height: int, even: bool = False) -> np.ndarray:
    """Resize to `height`; when enlarging, pixels stay visible as squares."""
    width = round(frame.shape[1] * height / frame.shape[0])
    width += width % 2 if even else 0
    how = cv2.INTER_AREA if height < frame.shape[0] else cv2.INTER_NEAREST
    return np.ascontiguousarray(cv2.resize(frame, (width, height), interpolation=how))
