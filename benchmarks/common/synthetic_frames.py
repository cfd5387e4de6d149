"""Frames to make shards of, for the benchmarks that read images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

FRAME_SIZE = (320, 427)
"""Height and width that ingest gives to wide footage."""


def make_frames(
    folder: Path,
    names: Iterable[str],
    random: np.random.Generator,
    size: tuple[int, int] = FRAME_SIZE,
    squares: int = 20,
) -> None:
    """An image of that height and width under every name: gradients, so many squares with their edges, and grain, by
    which a JPEG is near the size of real footage."""
    for name in names:
        coarse = cv2.resize(random.integers(0, 255, (12, 16, 3), np.uint8), size[::-1], interpolation=cv2.INTER_CUBIC)
        image = np.clip(coarse + random.normal(0, 6, (*size, 1)), 0, 255).astype(np.uint8)
        for _ in range(squares):
            corner = random.integers(0, 300, 2)
            cv2.rectangle(image, corner.tolist(), (corner + 40).tolist(), random.integers(0, 255, 3).tolist(), -1)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
