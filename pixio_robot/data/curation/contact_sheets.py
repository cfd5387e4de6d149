"""Contact sheets: small pictures of the frames that best show what a threshold does."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from pixio_robot.data.images.codec import CorruptImage, encode_jpeg
from pixio_robot.data.images.shards import FrameShards
from pixio_robot.html_pages import data_uri

PICTURES = 8
PER_VIDEO = 2
"""Neighbouring frames look alike, so further frames of a video are shown only if there are no others."""
CANDIDATES = 64
"""Number of frames closest to the threshold from which varied ones are chosen; frames further away would not show its
effect."""
HEIGHT = 120
QUALITY = 80


@dataclasses.dataclass(frozen=True)
class Thumbnail:
    """A data URI, the frame's id, and a short text such as its score."""

    source: str
    name: str
    caption: str


@dataclasses.dataclass(frozen=True)
class ContactSheet:
    title: str
    pictures: list[Thumbnail]


def select_closest(
    values: np.ndarray, rows: np.ndarray, target: float, videos: np.ndarray, count: int = PICTURES
) -> np.ndarray:
    """The `rows` int64 (m,) whose `values` (n,) are closest to `target`, closest first, from as many videos as
    possible."""
    distance = np.abs(values[rows].astype(np.float64) - target)
    if len(rows) > CANDIDATES:
        nearest = np.argpartition(distance, CANDIDATES)[:CANDIDATES]
        rows, distance = rows[nearest], distance[nearest]
    rows = rows[np.lexsort((rows, distance))]
    taken: dict[int, int] = {}
    first, spare = [], []
    for row in rows.tolist():
        video = int(videos[row])
        taken[video] = taken.get(video, 0) + 1
        (first if taken[video] <= PER_VIDEO else spare).append(row)
    chosen = np.array((first + spare)[:count], np.int64)
    return chosen[np.argsort(np.abs(values[chosen].astype(np.float64) - target), kind="stable")]


def make_thumbnail(shards: FrameShards, row: int, caption: str, beside: int | None = None) -> Thumbnail | None:
    """A small picture of a frame, to the right of the frame `beside` if given; None if it cannot be read."""
    try:
        tiles = [_small(shards.image(number)) for number in ([row] if beside is None else [beside, row])]
    except CorruptImage:
        return None
    gap = np.full((HEIGHT, 4, 3), 255, np.uint8)
    image = tiles[0] if beside is None else np.concatenate([tiles[0], gap, tiles[1]], axis=1)
    name = shards.id(row) if beside is None else f"{shards.id(beside)} and {shards.id(row)}"
    return Thumbnail(data_uri("image/jpeg", encode_jpeg(image, QUALITY)), name, caption)


def _small(image: np.ndarray) -> np.ndarray:
    width = min(max(1, round(image.shape[1] * HEIGHT / image.shape[0])), 3 * HEIGHT)
    shrinks = image.shape[0] > HEIGHT
    return cv2.resize(image, (width, HEIGHT), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
