"""Filming a few episodes: the first successes and the first failures, each alone and all in one grid."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pixio_robot.errors import UserError, unknown_name
from pixio_robot.evaluation.video import caption_frames, write_grid, write_video
from pixio_robot.types import DemoSpec, EpisodeResult, Frame

CANDIDATES_PER_VIDEO = 4
"""A policy that always succeeds has no failure to show: stop looking after this many episodes a video."""
GRID = "grid.mp4"
SPARE_PREFIX = ".spare-"
"""Of a film for which there is a place only if too few episodes of the other outcome come."""


@dataclasses.dataclass
class _Film:
    frames: list[np.ndarray] = dataclasses.field(default_factory=list)
    actions: list[np.ndarray] = dataclasses.field(default_factory=list)


class EpisodeRecorder:
    """Keeps the frames of candidate episodes in memory and writes those it has room for; a `rollout.Watcher`.

    Once all are over, `fill_up` gives places that no success took to failures, and the other way round.

    Args:
        directory: where `seed_<seed>.mp4` files go; created when the first one is written.
        spec: what the environment shows; gives the frame rate and checks the camera's name.
        videos: episodes to keep; half of them (rounded up) successes, the others failures, as far as there are any.
        camera: which camera to film.
        done: results of an interrupted evaluation; the videos they name count as kept.

    Raises UserError (with the valid names) when the environment has no such camera.
    """

    def __init__(
        self, directory: Path, spec: DemoSpec, *, videos: int, camera: str, done: Sequence[EpisodeResult] = ()
    ) -> None:
        if videos > 0 and camera not in spec.cameras:
            raise unknown_name("video_camera", camera, spec.cameras)
        self._directory = directory
        self._camera = camera
        self._frames_per_second = float(spec.control_hz)
        self._room = {True: (videos + 1) // 2, False: videos // 2}
        for result in done:
            if result.video is not None:
                self._room[result.success] -= 1
            elif self._path(result.seed).is_file():  # killed after `fill_up`, before that was noted
                self._path(result.seed).replace(self._spare(result.seed))
        for success, room in self._room.items():  # places that `fill_up` gave to the other kind before
            self._room[not success] += min(room, 0)
        self._spares = {result.seed: result.success for result in done if self._spare(result.seed).is_file()}
        self._candidates_left = CANDIDATES_PER_VIDEO * videos - len(done)
        self._films: dict[int, _Film] = {}

    def begin(self, seed: int) -> bool:
        if self._candidates_left <= 0 or max(self._room.values()) <= 0:
            return False
        self._candidates_left -= 1
        self._films[seed] = _Film()
        return True

    def see(self, seed: int, frame: Frame) -> None:
        if self._camera not in frame.images:
            raise UserError(
                f"The environment rendered no image of camera {self._camera!r} for the video of seed {seed}; "
                f"it rendered {sorted(frame.images)}."
            )
        self._films[seed].frames.append(frame.images[self._camera].copy())

    def act(self, seed: int, action: np.ndarray, reward: float) -> None:
        self._films[seed].actions.append(np.array(action))

    def discard(self, seed: int) -> None:
        del self._films[seed]
        self._candidates_left += 1

    def end(self, result: EpisodeResult) -> None:
        """Write the episode's video if there is still room for its outcome, and note it in the result.

        The path noted is relative to the parent of the recorder's directory, the results directory.
        """
        film = self._films.pop(result.seed)
        if self._room[result.success] > 0:
            self._room[result.success] -= 1
            path = self._path(result.seed)
            result.video = self._noted(result.seed)
        elif list(self._spares.values()).count(result.success) < self._room[not result.success]:
            self._spares[result.seed] = result.success
            path = self._spare(result.seed)
        else:
            return
        frames = caption_frames(film.frames, film.actions, result.seed, result.success)
        write_video(path, frames, self._frames_per_second)

    def fill_up(self, results: Sequence[EpisodeResult]) -> dict[int, str]:
        """Keep the first spare films to end, of those among the results, as far as the other outcome left places.

        What is kept is noted in its result, and returned by its seed."""
        by_seed, kept = {result.seed: result for result in results}, {}
        for seed, success in self._spares.items():
            if seed in by_seed and self._room[not success] > 0:
                self._room[not success] -= 1
                self._spare(seed).replace(self._path(seed))
                kept[seed] = by_seed[seed].video = self._noted(seed)
        self._spares.clear()
        for left in self._directory.glob(f"{SPARE_PREFIX}*"):
            left.unlink()
        return kept

    def _path(self, seed: int) -> Path:
        return self._directory / f"seed_{seed}.mp4"

    def _spare(self, seed: int) -> Path:
        return self._directory / f"{SPARE_PREFIX}seed_{seed}.mp4"

    def _noted(self, seed: int) -> str:
        return f"{self._directory.name}/{self._path(seed).name}"

    def write_grid(self, results: Sequence[EpisodeResult]) -> None:
        """All filmed episodes in one `grid.mp4`, failures first; nothing where fewer than two were filmed."""
        filmed = sorted((result.success, result.seed, result.video) for result in results if result.video)
        paths = [self._directory.parent / video for _, _, video in filmed]
        paths = [path for path in paths if path.is_file()]
        if len(paths) > 1:
            write_grid(self._directory / GRID, paths, self._frames_per_second)
