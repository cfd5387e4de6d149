"""The scores that depend only on a frame's pixels, computed in one decoding pass."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import cv2
import numpy as np

from pixio_robot.data.curation.entropy import BINS, colour_entropy
from pixio_robot.data.curation.exposure import BRIGHTEST, DARKEST, exposure
from pixio_robot.data.curation.score_columns import Chunk, ScoreColumn
from pixio_robot.data.curation.sharpness import SIDE, sharpness
from pixio_robot.data.images.codec import CorruptImage
from pixio_robot.data.images.shards import FrameShards

PIXEL_RECORD = np.dtype(
    [
        ("entropy", "<f4"),
        ("sharpness", "<f4"),
        ("dark", "<f4"),
        ("bright", "<f4"),
        ("mean", "<f4"),
        ("readable", "?"),
    ]
)
"""Units: see `colour_entropy`, `sharpness`, `exposure`. All zero where the JPEG is damaged."""

REPORT_EVERY = 32
VERSION = 1
"""Part of the key: increase it when the meaning of a score changes."""


def score_image(image: np.ndarray) -> tuple[float | int | bool, ...]:
    """The values of one PIXEL_RECORD; `image` is uint8 (h, w, 3)."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return colour_entropy(image), sharpness(grey), *exposure(grey), True


def score_pixels(chunk: Chunk, report: Callable[[float], None]) -> None:
    """The worker's job: score the frames of one chunk."""
    cv2.setNumThreads(1)  # the worker processes already use all cores
    shards = FrameShards.open(chunk.data, chunk.split)
    records = np.zeros(chunk.stop - chunk.start, PIXEL_RECORD)
    for number in range(len(records)):
        with contextlib.suppress(CorruptImage):  # the record stays zero: unreadable
            records[number] = score_image(shards.image(chunk.start + number))
        if (number + 1) % REPORT_EVERY == 0:
            report(REPORT_EVERY)
    report(len(records) % REPORT_EVERY)
    shards.close()
    chunk.save(records)


def pixel_column() -> ScoreColumn:
    settings = {"version": VERSION, "bins": BINS, "sharpness_side": SIDE, "clipped": [DARKEST, BRIGHTEST]}
    return ScoreColumn(
        name="pixels", title="pixel scores", settings=settings, job=score_pixels, argument=lambda chunk: chunk
    )
