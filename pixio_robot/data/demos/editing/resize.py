"""Changing the size of the images of episodes, and with it the calibration of their cameras."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import cv2
import numpy as np

from pixio_robot.data.demos.editing.rewrite import Edit
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.types import CameraSpec, DemoSpec, Episode

STRETCH, CROP, PAD = "stretch", "crop", "pad"
FITS = (STRETCH, CROP, PAD)
"""How an image gets another aspect ratio: distorted, without what lies outside the middle, or with black borders."""
_DONE = {STRETCH: "distorted to", CROP: "cropped to the shape of", PAD: "with black borders in"}
"""Way to fit -> the words of its note."""
_TOLERANCE = 0.01
"""A smaller change of the aspect ratio is rounding to whole pixels."""


def resize_images(spec: DemoSpec, height: int, width: int, cameras: Sequence[str] = (), fit: str = STRETCH) -> Edit:
    """Resample the images of the named cameras (default: all) to height x width pixels, without aliasing."""
    if height < 1 or width < 1:
        raise UserError(f"height={height} and width={width} must be at least 1 pixel.")
    if fit not in FITS:
        raise unknown_name("way to fit images (fit)", fit, FITS)
    for camera in cameras:
        if camera not in spec.cameras:
            raise unknown_name("camera", camera, spec.cameras)
    sizes = {name: (spec.cameras[name].height, spec.cameras[name].width) for name in cameras or spec.cameras}
    windows = {name: _find_window(size, height, width, fit) for name, size in sizes.items()}

    def change(episode: Episode) -> Episode:
        images = {
            camera: fit_images(frames, height, width, fit) if camera in windows else frames
            for camera, frames in episode.images.items()
        }
        return dataclasses.replace(episode, images=images)

    adapted = {
        name: _adapt_calibration(camera, windows[name], height, width) if name in windows else camera
        for name, camera in spec.cameras.items()
    }
    notes = [
        f"camera {name}: {camera.height} x {camera.width} px {_DONE[fit]} {height} x {width}"
        for name, camera in spec.cameras.items()
        if name in windows and abs(camera.width / camera.height * height / width - 1) > _TOLERANCE
    ]
    if notes and fit == STRETCH:
        notes.append("fit=crop and fit=pad keep the shape of things")
    return Edit(dataclasses.replace(spec, cameras=adapted), change, tuple(notes))


def fit_images(frames: np.ndarray, height: int, width: int, fit: str) -> np.ndarray:
    """Frames uint8 (n, h, w, 3) as (n, height, width, 3): by area averaging when shrinking, cubic when enlarging."""
    window = _find_window((frames.shape[1], frames.shape[2]), height, width, fit)
    how = cv2.INTER_AREA if height <= window[0] and width <= window[1] else cv2.INTER_CUBIC
    return np.stack([cv2.resize(_cut(frame, *window), (width, height), interpolation=how) for frame in frames])


def _find_window(size: tuple[int, int], height: int, width: int, fit: str) -> tuple[int, int]:
    """Height and width of the part of the image, around its centre, that becomes the new one; to be padded, it is
    larger than the image."""
    if fit == STRETCH:
        return size
    factors = (size[0] / height, size[1] / width)
    factor = min(factors) if fit == CROP else max(factors)
    return max(round(height * factor), 1), max(round(width * factor), 1)


def _starts(whole: tuple[int, int], window: tuple[int, int]) -> tuple[int, int]:
    """The window's first row and column; negative for a window that is larger than the image."""
    return (whole[0] - window[0]) // 2, (whole[1] - window[1]) // 2


def _cut(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """The window of a frame (h, w, 3), black outside of it."""
    top, left = _starts((frame.shape[0], frame.shape[1]), (height, width))
    inside = frame[max(top, 0) : max(top, 0) + height, max(left, 0) : max(left, 0) + width]
    if inside.shape[:2] == (height, width):
        return inside
    cut = np.zeros((height, width, 3), frame.dtype)
    cut[max(-top, 0) :, max(-left, 0) :][: inside.shape[0], : inside.shape[1]] = inside
    return cut


def _adapt_calibration(camera: CameraSpec, window: tuple[int, int], height: int, width: int) -> CameraSpec:
    """Scale the intrinsics with the image; the principal point is measured from the outer edge of the first pixel."""
    intrinsics, fov = camera.intrinsics, camera.fov_y_degrees
    if intrinsics is not None:
        fx, fy, cx, cy = intrinsics
        top, left = _starts((camera.height, camera.width), window)
        y, x = height / window[0], width / window[1]
        intrinsics = (fx * x, fy * y, (cx - left) * x, (cy - top) * y)
    if fov is not None and window[0] != camera.height:
        fov = math.degrees(2 * math.atan(math.tan(math.radians(fov) / 2) * window[0] / camera.height))
    return dataclasses.replace(camera, height=height, width=width, intrinsics=intrinsics, fov_y_degrees=fov)
