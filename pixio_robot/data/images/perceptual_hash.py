"""A 64-bit perceptual hash: frames that look alike differ in few bits.

The 8 x 8 lowest DCT frequencies of a 32 x 32 grey copy, thresholded at their median (Zauner, "Implementation and
Benchmarking of Perceptual Image Hash Functions", 2010, section 3.2.1). The mean is left out as it depends on exposure.
"""

from __future__ import annotations

import cv2
import numpy as np

SIDE, FREQUENCIES = 32, 8


def perceptual_hash(image: np.ndarray) -> int:
    """`image`: uint8 (h, w, 3) RGB, or float32 (h, w) grey levels. The distance is `(a ^ b).bit_count()`."""
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY) if small.ndim == 3 else small
    low = np.asarray(cv2.dct(grey.astype(np.float32)), np.float32)[:FREQUENCIES, :FREQUENCIES].ravel()
    low[0] = 0
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")
