"""The films beside the replay buffer of a real robot: `videos/EPISODE/CAMERA.mp4`, at the rate of the camera.

Step k of an episode is shown by the first frame at or after the step's time; the film begins with the episode. Where
the camera dropped frames, and up to a second at the end, a frame shows several steps, as in diffusion_policy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pixio_robot.errors import UserError, unknown_name
from pixio_robot.interop.diffusion_policy.replay_buffer import ReplayBuffer
from pixio_robot.interop.diffusion_policy.settings import ImportConfig

_VIDEOS, _SUFFIX = "videos", ".mp4"
_CAMERA = "camera_"
"""Precedes the number of a camera in the names that diffusion_policy gives to images."""
_TIMESTAMP = "timestamp"
_PADDING_S = 1.0
_EARLY = 0.01
"""A frame this part of a step before its time is on time."""


def films_folder(buffer: ReplayBuffer) -> Path | None:
    """The folder of the films; None if there is none."""
    folder = buffer.path.absolute().parent / _VIDEOS
    return folder if folder.is_dir() else None


def recorded_hz(buffer: ReplayBuffer) -> float:
    """The control rate according to the time stamps of the first episode; 0 if there are none."""
    start, stop = buffer.steps(0)
    if _TIMESTAMP not in buffer.arrays or len(buffer.array(_TIMESTAMP).shape) != 1 or stop - start < 2:
        return 0.0
    step_s = float(np.median(np.diff(buffer.array(_TIMESTAMP).rows(start, stop))))
    return round(1 / step_s, 3) if step_s > 0 else 0.0


@dataclasses.dataclass(frozen=True)
class Films:
    """`hz`: steps per second. Images are cropped to the shape of `height` x `width` pixels and resized."""

    folder: Path
    cameras: Sequence[str]
    hz: float
    height: int
    width: int

    @classmethod
    def open(cls, folder: Path, config: ImportConfig, hz: float) -> Films | None:
        """None if the folder has no films. Raises UserError for cameras without films, and without an image size."""
        found = {int(film.stem) for film in folder.glob(f"*/*{_SUFFIX}") if film.stem.isdecimal()}
        known = [f"{_CAMERA}{number}" for number in sorted(found)]
        if not known:
            return None
        for camera in config.cameras:
            if camera not in known:
                raise unknown_name(f"camera with a film in {folder}", camera, known)
        if config.height < 1 or config.width < 1:
            raise UserError(
                f"The films in {folder} may be large, and the store keeps every pixel: set height= and width= of its "
                "images (diffusion_policy trains on height=240 width=320), or films=false."
            )
        return cls(folder, config.cameras or known, hz, config.height, config.width)

    def images(self, episode: int, camera: str, steps: int) -> np.ndarray:
        """uint8 (steps, height, width, 3). Raises UserError for a film that is missing, damaged or too short."""
        from pixio_robot.data.demos.editing.resize import CROP, fit_images
        from pixio_robot.data.ingest.frame_sampling import Sampling
        from pixio_robot.data.video.container import VideoError
        from pixio_robot.data.video.decode import decode_frames

        path = self.folder / str(episode) / f"{camera.removeprefix(_CAMERA)}{_SUFFIX}"
        shown: list[np.ndarray] = []
        frames = decode_frames(path, sampling=Sampling.RATE, frames_per_second=self.hz)
        try:
            with contextlib.closing(frames):  # pyright: ignore[reportArgumentType]
                for since_s, frame in frames:
                    image = fit_images(frame[None], self.height, self.width, CROP)[0]
                    shown += [image] * (math.floor(since_s * self.hz + _EARLY) + 1 - len(shown))
                    if len(shown) >= steps:
                        break
        except VideoError as error:
            raise UserError(
                f"{path}, the film of {camera} in episode {episode}, cannot be used: {error.reason}. cameras= chooses "
                "others, films=false none."
            ) from error
        if steps - len(shown) > _PADDING_S * self.hz:
            raise UserError(
                f"{path} shows {len(shown)} of the {steps} steps of episode {episode}, at {self.hz:g} Hz: is it the "
                "film of another episode?"
            )
        return np.stack((shown + shown[-1:] * (steps - len(shown)))[:steps])
