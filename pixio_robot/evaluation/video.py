"""Write episodes as mp4 for browsers, with captions (step, outcome, action), and grids of several episodes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from pixio_robot.data.video.encode import video_writer
from pixio_robot.errors import UserError
from pixio_robot.files import atomic_file

SHORTEST_SIDE = 256
"""Smaller frames are enlarged to this size [px], so that captions are readable."""
CAPTION_HEIGHT, ACTION_HEIGHT = 28, 36
TILE_WIDTH = 160
MOST_TILES = 36
_INDEX_FIRST = {"movflags": "+faststart"}
_COLOURS = {True: (46, 125, 50), False: (176, 42, 42)}
_DARK, _LINE, _BAR = (32, 37, 41), (110, 120, 128), (88, 191, 224)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_LABEL_WIDTH = 52


def caption_frames(
    frames: Iterable[np.ndarray], actions: Sequence[np.ndarray], seed: int, success: bool
) -> Iterator[np.ndarray]:
    """Add caption strips below the n + 1 frames, uint8 (h, w, 3), of an episode with n actions (a,).

    The first strip shows seed, step and outcome, coloured by outcome. The second shows the next action, one bar per
    dimension, upwards for positive values; a full bar is 1, or the episode's largest magnitude if that is greater.
    Output sides are even, as yuv420p requires.
    """
    reach = np.maximum(1.0, np.abs(np.stack(actions)).max(0)) if len(actions) else None
    for step, frame in enumerate(frames):
        height, width = frame.shape[:2]
        scale = max(1.0, SHORTEST_SIDE / min(height, width))
        size = (round(width * scale / 2) * 2, round(height * scale / 2) * 2)
        enlarged = cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
        text = f"seed {seed}  step {step}/{len(actions)}  {'success' if success else 'failure'}"
        share = actions[step] / reach if reach is not None and step < len(actions) else None
        yield np.concatenate([enlarged, _caption_strip(text, size[0], success), _action_strip(share, size[0])])


def _caption_strip(text: str, width: int, success: bool) -> np.ndarray:
    strip = np.full((CAPTION_HEIGHT, width, 3), _COLOURS[success], np.uint8)
    scale = 0.5 * min(1.0, (width - 12) / cv2.getTextSize(text, _FONT, 0.5, 1)[0][0])
    cv2.putText(strip, text, (6, 19), _FONT, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return strip


def _action_strip(share_a: np.ndarray | None, width: int) -> np.ndarray:
    """The action as bars, scaled from -1 to 1 over the strip's height; without an action, only the zero line."""
    strip = np.full((ACTION_HEIGHT, width, 3), _DARK, np.uint8)
    middle, half = ACTION_HEIGHT // 2, ACTION_HEIGHT // 2 - 3
    cv2.putText(strip, "action", (6, middle + 4), _FONT, 0.4, (220, 224, 227), 1, cv2.LINE_AA)
    strip[middle, _LABEL_WIDTH : width - 6] = _LINE
    if share_a is not None:
        pitch = (width - 6 - _LABEL_WIDTH) / len(share_a)
        for index, value in enumerate(np.clip(share_a, -1, 1)):
            left = _LABEL_WIDTH + round(index * pitch + pitch * 0.2)
            right = max(left + 1, _LABEL_WIDTH + round((index + 1) * pitch - pitch * 0.2))
            end = middle - round(float(value) * half)
            strip[min(middle, end) : max(middle, end) + 1, left:right] = _BAR
    return strip


def write_video(path: Path, frames: Iterable[np.ndarray], frames_per_second: float) -> None:
    """Write frames, uint8 (h, w, 3) with even sides, as H.264 yuv420p with the index first, atomically."""
    with atomic_file(path) as temporary, video_writer(temporary, frames_per_second, {}, layout=_INDEX_FIRST) as append:
        for frame in frames:
            append(frame)


def write_grid(path: Path, videos: Sequence[Path], frames_per_second: float) -> None:
    """Write up to MOST_TILES videos as one grid, in the given order, row by row; a video that has ended freezes.

    Raises UserError naming a video that cannot be read.
    """
    write_video(path, _tile_frames(videos[:MOST_TILES]), frames_per_second)


def _tile_frames(videos: Sequence[Path]) -> Iterator[np.ndarray]:
    columns = math.ceil(math.sqrt(len(videos)))
    captures = [cv2.VideoCapture(str(video)) for video in videos]
    try:
        shown = [_next_tile(capture) for capture in captures]
        for video, tile in zip(videos, shown, strict=True):
            if tile is None:
                raise UserError(f"{video} is not a readable video; delete it to continue without it.")
        tiles: list[np.ndarray] = [tile for tile in shown if tile is not None]
        height, width = (max(tile.shape[axis] for tile in tiles) for axis in (0, 1))
        running = True
        while running:
            canvas = np.full((math.ceil(len(tiles) / columns) * height, columns * width, 3), _DARK, np.uint8)
            for index, tile in enumerate(tiles):
                top, left = index // columns * height, index % columns * width
                canvas[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
            yield canvas
            running = False
            for index, capture in enumerate(captures):
                tile = _next_tile(capture)
                if tile is not None:
                    tiles[index], running = tile, True
    finally:
        for capture in captures:
            capture.release()


def _next_tile(capture: cv2.VideoCapture) -> np.ndarray | None:
    """The next frame at TILE_WIDTH, RGB, with even sides; None at the end."""
    read, frame = capture.read()
    if not read:
        return None
    height = round(frame.shape[0] * TILE_WIDTH / frame.shape[1] / 2) * 2
    return cv2.resize(frame, (TILE_WIDTH, height), interpolation=cv2.INTER_AREA)[..., ::-1]
