"""The video of one camera in one episode: one frame per step, lossless with crf=0."""

from __future__ import annotations

import glob
from pathlib import Path

import numpy as np

from pixio_robot.data.video.encode import video_writer
from pixio_robot.errors import UserError

EXACT = 0
_MOST_CRF = 51
_LEAST_SIDE = 16


def write_video(path: Path, frames: np.ndarray, rate_hz: float, crf: int) -> None:
    """Write frames uint8 (n, h, w, 3) as H.264: lossless RGB for crf=0, otherwise YUV 4:2:0.

    Raises UserError for sizes and settings that H.264 does not support.
    """
    height, width = frames.shape[1:3]
    if not 0 <= crf <= _MOST_CRF:
        raise UserError(f"crf={crf} must be between 0 and {_MOST_CRF}: 0 is lossless, 18 is visually lossless.")
    if min(height, width) < _LEAST_SIDE or (crf != EXACT and (height % 2 or width % 2)):
        raise UserError(
            f"{height} x {width} px images cannot be encoded with crf={crf}: sides must be at least {_LEAST_SIDE} px, "
            "and even numbers unless crf=0; choose images=npz, or crf=0."
        )
    with video_writer(path, rate_hz, {"crf": str(crf), "threads": "1"}, lossless=crf == EXACT) as append:
        for frame in frames:
            append(frame)


def find_video(npz: Path) -> dict[str, Path]:
    """Camera -> video of the episode in `npz`: NAME.CAMERA.mp4 beside it, or NAME/CAMERA.mp4."""
    from pixio_robot.data.video.container import VIDEO_SUFFIXES

    videos: dict[str, Path] = {}
    beside = [
        (path.stem.removeprefix(f"{npz.stem}."), path) for path in npz.parent.glob(f"{glob.escape(npz.stem)}.*.*")
    ]
    inside = [(path.stem, path) for path in (npz.parent / npz.stem).glob("*.*")]
    for camera, path in sorted(beside + inside):
        if path.suffix.lower() not in VIDEO_SUFFIXES:
            continue
        if camera in videos:
            raise UserError(f"{videos[camera]} and {path} would both be camera {camera!r} of {npz}.")
        videos[camera] = path
    return videos


def read_video(path: Path, count: int) -> np.ndarray:
    """The frames, uint8 (count, h, w, 3), upright. Raises UserError if damaged or if the frame count differs."""
    from pixio_robot.data.ingest.frame_sampling import Sampling
    from pixio_robot.data.video.container import VideoError
    from pixio_robot.data.video.decode import decode_frames

    try:
        frames = [frame for _, frame in decode_frames(path, sampling=Sampling.EVERY, every=1)]
    except VideoError as error:
        raise UserError(f"{path} cannot be used: {error.reason}.") from error
    if len(frames) != count:
        raise UserError(f"{path} has {len(frames)} frames, but its episode has {count} steps.")
    return np.stack(frames)
