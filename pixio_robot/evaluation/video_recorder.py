"""Record videos of the first successes and the first failures, each as a file and all in one grid."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pixio_robot.data.images.codec import decode_jpeg, encode_jpeg
from pixio_robot.errors import unknown_name
from pixio_robot.evaluation.video import caption_frames, write_grid, write_video
from pixio_robot.types import DemoSpec, EpisodeResult, Frame

CANDIDATES_PER_VIDEO = 4
"""Stop recording candidates after this many episodes per video: a policy may never fail, or never succeed."""
GRID = "grid.mp4"
SPARE_PREFIX = ".spare-"
"""File name prefix of a spare video, which is kept only if there are too few episodes of the other outcome."""


FRAME_QUALITY = 95
"""JPEG quality of frames in memory: of eight episodes at 640 x 480, raw ones would take gigabytes."""


@dataclasses.dataclass
class _EpisodeFrames:
    frames: list[bytes] = dataclasses.field(default_factory=list)
    actions: list[np.ndarray] = dataclasses.field(default_factory=list)


class VideoRecorder:
    """Keep the frames of candidate episodes in memory and write those that are selected; a `rollout.Watcher`.

    When all episodes have ended, `promote_spares` gives places left over by successes to failures, and vice versa.

    Args:
        directory: output directory for `seed_<seed>.mp4`; created with the first file.
        spec: the environment's spec, for the frame rate and to check the camera's name.
        videos: number of episodes to keep; half (rounded up) successes, the rest failures, if there are enough.
        camera: camera to record.
        done: results of an interrupted evaluation; videos that they refer to count as kept.

    Raises UserError (with the valid names) if the environment has no such camera.
    """

    def __init__(
        self, directory: Path, spec: DemoSpec, *, videos: int, camera: str, done: Sequence[EpisodeResult] = ()
    ) -> None:
        if videos > 0 and camera not in spec.cameras:
            raise unknown_name("video_camera", camera, spec.cameras)
        self._directory = directory
        self._camera = camera
        self._frames_per_second = float(spec.control_hz)
        self._videos_left = {True: (videos + 1) // 2, False: videos // 2}
        for result in done:
            if result.video is not None:
                self._videos_left[result.success] -= 1
            elif self._video_path(result.seed).is_file():
                # The process was killed after `promote_spares`, before the results were updated.
                self._video_path(result.seed).replace(self._spare_path(result.seed))
        for success, left in self._videos_left.items():
            # An earlier `promote_spares` gave places of this outcome to the other one.
            self._videos_left[not success] += min(left, 0)
        self._spares = {result.seed: result.success for result in done if self._spare_path(result.seed).is_file()}
        self._candidates_left = CANDIDATES_PER_VIDEO * videos - len(done)
        self._recordings: dict[int, _EpisodeFrames] = {}

    def begin(self, seed: int) -> bool:
        if self._candidates_left <= 0 or max(self._videos_left.values()) <= 0:
            return False
        self._candidates_left -= 1
        self._recordings[seed] = _EpisodeFrames()
        return True

    def on_frame(self, seed: int, frame: Frame) -> None:
        self._recordings[seed].frames.append(encode_jpeg(frame.images[self._camera], FRAME_QUALITY))

    def on_action(self, seed: int, action: np.ndarray, reward: float) -> None:
        self._recordings[seed].actions.append(np.array(action))

    def discard(self, seed: int) -> None:
        del self._recordings[seed]
        self._candidates_left += 1

    def end(self, result: EpisodeResult) -> None:
        """Write the episode's video if a place is left for its outcome, and set `result.video`.

        The path is relative to the results directory, which is the parent of the recorder's directory.
        """
        recording = self._recordings.pop(result.seed)
        if self._videos_left[result.success] > 0:
            self._videos_left[result.success] -= 1
            path = self._video_path(result.seed)
            result.video = self._relative_path(result.seed)
        elif list(self._spares.values()).count(result.success) < self._videos_left[not result.success]:
            self._spares[result.seed] = result.success
            path = self._spare_path(result.seed)
        else:
            return
        frames = (decode_jpeg(frame, path.name) for frame in recording.frames)
        captioned = caption_frames(frames, recording.actions, result.seed, result.success)
        write_video(path, captioned, self._frames_per_second)

    def promote_spares(self, results: Sequence[EpisodeResult]) -> dict[int, str]:
        """Fill places left over by the other outcome with spare videos of episodes in `results`, first ended first.

        Sets `video` of these results and returns the paths by seed.
        """
        by_seed, kept = {result.seed: result for result in results}, {}
        for seed, success in self._spares.items():
            if seed in by_seed and self._videos_left[not success] > 0:
                self._videos_left[not success] -= 1
                self._spare_path(seed).replace(self._video_path(seed))
                kept[seed] = by_seed[seed].video = self._relative_path(seed)
        self._spares.clear()
        for left in self._directory.glob(f"{SPARE_PREFIX}*"):
            left.unlink()
        return kept

    def _video_path(self, seed: int) -> Path:
        return self._directory / f"seed_{seed}.mp4"

    def _spare_path(self, seed: int) -> Path:
        return self._directory / f"{SPARE_PREFIX}seed_{seed}.mp4"

    def _relative_path(self, seed: int) -> str:
        return f"{self._directory.name}/{self._video_path(seed).name}"

    def write_grid(self, results: Sequence[EpisodeResult]) -> None:
        """Write all recorded episodes to one `grid.mp4`, failures first, if there are at least two."""
        filmed = sorted((result.success, result.seed, result.video) for result in results if result.video)
        paths = [self._directory.parent / video for _, _, video in filmed]
        paths = [path for path in paths if path.is_file()]
        if len(paths) > 1:
            write_grid(self._directory / GRID, paths, self._frames_per_second)
