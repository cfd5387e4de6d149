"""Filming a few episodes: the first successes and the first failures, as mp4 a browser plays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pixio_robot.errors import UserError, unknown_name
from pixio_robot.files import atomic_file
from pixio_robot.types import DemoSpec, EpisodeResult, Frame

SHORTEST_SIDE = 256
"""Smaller frames are enlarged to this many pixels, so that captions can be read."""
CAPTION_HEIGHT = 28
CANDIDATES_PER_VIDEO = 4
"""A policy that always succeeds has no failure to show: stop looking after this many episodes a video."""
_INDEX_FIRST = {"movflags": "+faststart"}
_COLOURS = {True: (46, 125, 50), False: (176, 42, 42)}


class EpisodeRecorder:
    """Keeps the frames of candidate episodes in memory and writes those it has room for.

    Args:
        directory: where `seed_<seed>.mp4` files go; created when the first one is written.
        spec: what the environment shows; gives the frame rate and checks the camera's name.
        videos: episodes to keep; half of them (rounded up) successes, the others failures.
        camera: which camera to film.
        done: results of an interrupted evaluation; the videos they name count as kept.

    Raises UserError (with the valid names) when the environment has no such camera.
    """

    def __init__(
        self, directory: Path, spec: DemoSpec, *, videos: int, camera: str, done: Sequence[EpisodeResult] = ()
    ) -> None:
        if videos > 0 and camera not in spec.cameras:
            raise unknown_name("evaluate.video_camera", camera, spec.cameras)
        self._directory = directory
        self._camera = camera
        self._frames_per_second = float(spec.control_hz)
        self._room = {True: (videos + 1) // 2, False: videos // 2}
        for result in done:
            if result.video is not None:
                self._room[result.success] -= 1
        self._candidates_left = CANDIDATES_PER_VIDEO * videos - len(done)
        self._frames: dict[int, list[np.ndarray]] = {}

    def begin(self, seed: int) -> bool:
        """Whether the episode of that seed is to be filmed; if so its frames must be rendered."""
        if self._candidates_left <= 0 or max(self._room.values()) <= 0:
            return False
        self._candidates_left -= 1
        self._frames[seed] = []
        return True

    def add(self, seed: int, frame: Frame) -> None:
        if self._camera not in frame.images:
            raise UserError(
                f"The environment rendered no image of camera {self._camera!r} for the video of seed {seed}; "
                f"it rendered {sorted(frame.images)}."
            )
        self._frames[seed].append(frame.images[self._camera].copy())

    def discard(self, seed: int) -> None:
        """Forget an episode whose worker died; it will begin again."""
        del self._frames[seed]
        self._candidates_left += 1

    def end(self, seed: int, success: bool) -> str | None:
        """Write the episode's video if there is still room for its outcome: its path or None.

        The path is relative to the parent of the recorder's directory, the results directory.
        """
        frames = self._frames.pop(seed)
        if self._room[success] <= 0:
            return None
        self._room[success] -= 1
        name = f"seed_{seed}.mp4"
        write_video(self._directory / name, caption_frames(frames, seed, success), self._frames_per_second)
        return f"{self._directory.name}/{name}"


def caption_frames(frames: Sequence[np.ndarray], seed: int, success: bool) -> list[np.ndarray]:
    """Frames uint8 (h, w, 3) with a strip below: seed, step, outcome. The image itself is untouched.

    Sides come out even, as yuv420p needs.
    """
    height, width = frames[0].shape[:2]
    scale = max(1.0, SHORTEST_SIDE / min(height, width))
    size = (round(width * scale / 2) * 2, round(height * scale / 2) * 2)
    captioned = []
    for step, frame in enumerate(frames):
        enlarged = cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
        strip = np.full((CAPTION_HEIGHT, size[0], 3), _COLOURS[success], np.uint8)
        text = f"seed {seed}  step {step}/{len(frames) - 1}  {'success' if success else 'failure'}"
        font, font_scale = cv2.FONT_HERSHEY_SIMPLEX, 0.5
        text_width = cv2.getTextSize(text, font, font_scale, 1)[0][0]
        font_scale *= min(1.0, (size[0] - 12) / text_width)
        cv2.putText(strip, text, (6, 19), font, font_scale, (255, 255, 255), 1, cv2.LINE_AA)
        captioned.append(np.concatenate([enlarged, strip]))
    return captioned


def write_video(path: Path, frames: Sequence[np.ndarray], frames_per_second: float) -> None:
    """Write frames uint8 (h, w, 3) with even sides as H.264 yuv420p, its index first, atomically."""
    import imageio.v3 as iio

    imopen: Any = iio.imopen  # its type hints know plugins as classes only, not by name
    with atomic_file(path) as temporary, imopen(temporary, "w", plugin="pyav", options=_INDEX_FIRST) as video:
        video.init_video_stream("libx264", fps=frames_per_second, pixel_format="yuv420p")
        for frame in frames:
            video.write_frame(frame)
