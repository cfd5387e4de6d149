"""Entropy of a frame's colours: low for pages of text, screens, blank walls and covered lenses.

Pixio keeps images whose colour-histogram entropy lies above a threshold (arXiv 2512.15715, data curation), but its bins
and logarithm are not public. Ours: one joint histogram of 8 x 8 x 8 equal RGB bins, in bits, from 0 (one colour) to 9
(all bins equally full). Bins 32 levels wide ignore sensor noise and JPEG ringing. Thresholds chosen for other bins do
not carry over: choose yours from the distribution in `curation.html`.
"""

from __future__ import annotations

import cv2
import numpy as np

BINS = 8


def colour_entropy(image: np.ndarray) -> float:
    """Bits, 0 to 9; `image` is uint8 (h, w, 3)."""
    counts = cv2.calcHist([image], [0, 1, 2], None, [BINS] * 3, [0, 256] * 3)
    shares = counts[counts > 0] / (image.shape[0] * image.shape[1])
    return float(-(shares * np.log2(shares)).sum()) + 0.0  # never minus zero
