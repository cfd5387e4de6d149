"""How much fine detail a frame has: low for motion blur, an out-of-focus lens and surfaces without texture.

The variance of the Laplacian (Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000) of
a copy of fixed size because it would otherwise depend more on the resolution than on the content.
"""

from __future__ import annotations

import cv2
import numpy as np

SIDE = 256


def sharpness(grey: np.ndarray) -> float:
    """Variance of the Laplacian in squared grey levels; `grey` is uint8 (h, w)."""
    shrinks = min(grey.shape) >= SIDE
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return float(cv2.Laplacian(small, cv2.CV_32F).var())
