"""The scores that depend only on a frame's pixels, computed in one decoding pass."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from pixio_robot.data.curation.score_columns import Chunk, ScoreColumn
from pixio_robot.data.images.codec import CorruptImage
from pixio_robot.data.images.shards import FrameShards

ENTROPY_BINS = 8
SHARPNESS_SIDE = 256
DARKEST, BRIGHTEST = 15, 240
"""A pixel counts as dark up to the first grey level and as bright from the second on: 6 % of the range each."""
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


class Exposure(NamedTuple):
    """Shares of dark and of bright pixels, 0 to 1, and the mean grey level, 0 to 255."""

    dark: float
    bright: float
    mean: float


def colour_entropy(image: np.ndarray) -> float:
    """Entropy of the colours of `image`, uint8 (h, w, 3): low for pages of text, screens, blank walls, covered lenses.

    Pixio keeps images whose colour-histogram entropy lies above a threshold (arXiv 2512.15715, data curation), but its
    bins and logarithm are not public. Ours: one joint histogram of 8 x 8 x 8 equal RGB bins, in bits, from 0 (one
    colour) to 9 (all bins equally full). Bins 32 levels wide ignore sensor noise and JPEG ringing. Thresholds chosen
    for other bins do not carry over: choose yours from the distribution in `curation.html`.
    """
    counts = cv2.calcHist([image], [0, 1, 2], None, [ENTROPY_BINS] * 3, [0, 256] * 3)
    shares = counts[counts > 0] / (image.shape[0] * image.shape[1])
    return float(-(shares * np.log2(shares)).sum()) + 0.0  # never minus zero


def sharpness(grey: np.ndarray) -> float:
    """How much fine detail `grey`, uint8 (h, w), has: low for motion blur, an out-of-focus lens and surfaces without
    texture.

    The variance of the Laplacian, in squared grey levels (Pech-Pacheco et al., "Diatom autofocusing in brightfield
    microscopy", ICPR 2000), of a copy of fixed size because it would otherwise depend more on the resolution than on
    the content.
    """
    interpolation = cv2.INTER_AREA if min(grey.shape) >= SHARPNESS_SIDE else cv2.INTER_LINEAR
    small = cv2.resize(grey, (SHARPNESS_SIDE, SHARPNESS_SIDE), interpolation=interpolation)
    return float(cv2.Laplacian(small, cv2.CV_32F).var())


def exposure(grey: np.ndarray) -> Exposure:
    """How much of `grey`, uint8 (h, w), is too dark or too bright to show anything."""
    shares = cv2.calcHist([grey], [0], None, [256], [0, 256]).ravel().astype(np.float64) / grey.size
    return Exposure(float(shares[: DARKEST + 1].sum()), float(shares[BRIGHTEST:].sum()), float(shares @ np.arange(256)))


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
    settings = {
        "version": VERSION,
        "bins": ENTROPY_BINS,
        "sharpness_side": SHARPNESS_SIDE,
        "clipped": [DARKEST, BRIGHTEST],
    }
    return ScoreColumn(
        name="pixels", title="pixel scores", settings=settings, job=score_pixels, argument=lambda chunk: chunk
    )
