"""A 64-bit fingerprint of what a frame looks like: frames that look alike differ in few bits.

The signs of the 8 x 8 lowest frequencies of a 32 x 32 grey copy against their median (Zauner, "Implementation and
Benchmarking of Perceptual Image Hash Functions", 2010, section 3.2.1). Exposure moves the mean, which is left out.
"""

from __future__ import annotations

import cv2
import numpy as np

SIDE, FREQUENCIES = 32, 8


def perceptual_hash(image: np.ndarray) -> int:
    """`image`: uint8 (h, w, 3) RGB, or float32 (h, w) grey levels. Two hashes compare by `(a ^ b).bit_count()`."""
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY) if small.ndim == 3 else small
    low = np.asarray(cv2.dct(grey.astype(np.float32)), np.float32)[:FREQUENCIES, :FREQUENCIES].ravel()
    low[0] = 0
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")
