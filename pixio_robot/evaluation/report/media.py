"""Images and videos of a run as data URIs, within a size limit for the report."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from pixio_robot.errors import UserError
from pixio_robot.evaluation.report.evaluations import Evaluation
from pixio_robot.evaluation.results import VIDEOS
from pixio_robot.evaluation.video_recorder import GRID
from pixio_robot.html_pages import data_uri
from pixio_robot.types import EpisodeResult

_WIDEST_PANEL = 900
_PANELS = 4


@dataclasses.dataclass(frozen=True)
class Panel:
    step: str
    source: str


@dataclasses.dataclass(frozen=True)
class Clip:
    """One rollout: data URIs of the mp4 and of its poster image."""

    episode: EpisodeResult | None
    """None for a grid of several episodes."""
    source: str
    poster: str
    width: int
    height: int

    @property
    def cost(self) -> int:
        """Size in the page [bytes]."""
        return len(self.source) + len(self.poster)


@dataclasses.dataclass(frozen=True)
class Clips:
    """The clips of one evaluation, failures first; `left_out` more are only on disk."""

    evaluation: Evaluation
    grid: Clip | None
    """All of them in one grid; None if there is no grid or it is too large."""
    shown: Sequence[Clip]
    left_out: int


def load_panels(paths: Sequence[Path]) -> list[Panel]:
    """Up to four panels spread over training, including the first and the last, as JPEG.

    Raises UserError naming a file that is not an image.
    """
    if len(paths) > _PANELS:
        picked = np.linspace(0, len(paths) - 1, _PANELS).round().astype(int)
        paths = [paths[index] for index in picked]
    panels = []
    for path in paths:
        image = cv2.imread(str(path))
        if image is None:
            raise UserError(f"{path} is not a readable image.")
        if image.shape[1] > _WIDEST_PANEL:
            height = round(image.shape[0] * _WIDEST_PANEL / image.shape[1])
            image = cv2.resize(image, (_WIDEST_PANEL, height), interpolation=cv2.INTER_AREA)
        step = path.stem.removeprefix("step_").lstrip("0") or "0"
        panels.append(Panel(step, _jpeg(image)))
    return panels


def load_clips(evaluations: Sequence[Evaluation], budget_bytes: int) -> list[Clips]:
    """The videos of the evaluations, taken in turns until `budget_bytes` of base64 are used.

    Videos whose file is missing are skipped; one that cannot be decoded raises UserError.
    """
    grids: list[Clip | None] = []
    for evaluation in evaluations:
        path = evaluation.directory / VIDEOS / GRID
        grid = _read_clip(path, None) if path.is_file() else None
        if grid is not None and grid.cost <= budget_bytes // 3:
            budget_bytes -= grid.cost
            grids.append(grid)
        else:
            grids.append(None)
    queues = [
        [(path, episode) for episode in evaluation.episodes if (path := _video_path(evaluation, episode))]
        for evaluation in evaluations
    ]
    # Failures and successes alternate, so that a small budget shows both; failures come first, as more informative.
    queues = [_alternate(queue) for queue in queues]
    shown: list[list[Clip]] = [[] for _ in evaluations]
    for turn in range(max(map(len, queues), default=0)):
        for queue, chosen in zip(queues, shown, strict=True):
            # The size alone says of most videos of many evaluations that they do not fit: they are not decoded.
            if turn < len(queue) and _base64_bytes(queue[turn][0]) <= budget_bytes:
                clip = _read_clip(*queue[turn])
                if clip.cost <= budget_bytes:
                    budget_bytes -= clip.cost
                    chosen.append(clip)
    return [
        Clips(evaluation, grid, _failures_first(chosen), len(queue) - len(chosen))
        for evaluation, grid, queue, chosen in zip(evaluations, grids, queues, shown, strict=True)
        if queue
    ]


def _base64_bytes(path: Path) -> int:
    return path.stat().st_size * 4 // 3


def _failures_first(clips: Sequence[Clip]) -> list[Clip]:
    return sorted(clips, key=lambda clip: clip.episode is not None and clip.episode.success)


def _alternate(recorded: Sequence[tuple[Path, EpisodeResult]]) -> list[tuple[Path, EpisodeResult]]:
    failures, successes = ([each for each in recorded if each[1].success == success] for success in (False, True))
    return [each for pair in itertools.zip_longest(failures, successes) for each in pair if each is not None]


def _video_path(evaluation: Evaluation, episode: EpisodeResult) -> Path | None:
    """Path of the episode's video; None if it is missing or outside the results directory."""
    if episode.video is None:
        return None
    path = (evaluation.directory / episode.video).resolve()
    return path if path.is_relative_to(evaluation.directory.resolve()) and path.is_file() else None


def _read_clip(path: Path, episode: EpisodeResult | None) -> Clip:
    capture = cv2.VideoCapture(str(path))
    try:
        read, first = capture.read()
    finally:
        capture.release()
    if not read:
        raise UserError(f"{path} is not a readable video; delete it to create the report without it.")
    height, width = first.shape[:2]
    return Clip(episode, data_uri("video/mp4", path.read_bytes()), _jpeg(first), width, height)


def _jpeg(image_bgr: np.ndarray) -> str:
    encoded = cv2.imencode(".jpg", image_bgr, [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
    return data_uri("image/jpeg", encoded.tobytes())
