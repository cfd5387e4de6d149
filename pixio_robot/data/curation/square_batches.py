"""Batches of square images, as models need them, from frames of any shape."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pixio_robot.data.curation.score_columns import Chunk
from pixio_robot.data.images.codec import CorruptImage
from pixio_robot.data.images.crops import crop_and_resize
from pixio_robot.data.images.shards import FrameShards


def center_crop(image: np.ndarray, size: int) -> np.ndarray:
    """The largest central square of an image uint8 (h, w, 3), resampled to uint8 (size, size, 3)."""
    height, width = image.shape[:2]
    side = min(height, width)
    out = np.empty((size, size, 3), np.uint8)
    crop_and_resize(image, ((height - side) // 2, (width - side) // 2, side, side), size, out)
    return out


def iterate_batches(
    shards: FrameShards, chunk: Chunk, size: int, batch: int, threads: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (rows int64 (b,), squares uint8 (b, size, size, 3)) of a chunk's readable frames. `threads` threads
    decode one batch ahead."""

    def read(row: int) -> np.ndarray | None:
        try:
            return center_crop(shards.image(row), size)
        except CorruptImage:
            return None

    with ThreadPoolExecutor(threads) as pool:
        spans = [range(start, min(start + batch, chunk.stop)) for start in range(chunk.start, chunk.stop, batch)]
        coming = pool.map(read, spans[0])
        for number, span in enumerate(spans):
            views = list(coming)
            if number + 1 < len(spans):
                coming = pool.map(read, spans[number + 1])
            readable = [(row, view) for row, view in zip(span, views, strict=True) if view is not None]
            if readable:
                yield np.array([row for row, _ in readable]), np.stack([view for _, view in readable])
