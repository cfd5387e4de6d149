"""The share of a frame that is too dark or too bright to show anything."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

DARKEST, BRIGHTEST = 15, 240
"""A pixel counts as dark up to the first grey level and as bright from the second on: 6 % of the range each."""


class Exposure(NamedTuple):
    """Shares of dark and of bright pixels, 0 to 1, and the mean grey level, 0 to 255."""

    dark: float
    bright: float
    mean: float


def exposure(grey: np.ndarray) -> Exposure:
    """`grey` is uint8 (h, w)."""
    shares = cv2.calcHist([grey], [0], None, [256], [0, 256]).ravel().astype(np.float64) / grey.size
    return Exposure(float(shares[: DARKEST + 1].sum()), float(shares[BRIGHTEST:].sum()), float(shares @ np.arange(256)))
