"""Endless batches of random crops, decoded ahead by threads (JPEG decoding and resizing leave Python's lock free)."""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import torch

from pixio_robot.data.crops import crop_and_resize, random_crop_box
from pixio_robot.data.image_sources import ConcatenatedImages, DemoFrames, ImageSource, open_image_source
from pixio_robot.data.images import CorruptImage
from pixio_robot.errors import UserError

__all__ = [
    "ConcatenatedImages",
    "DemoFrames",
    "ImageSource",
    "PixelBatch",
    "PixelBatches",
    "open_image_source",
]

log = logging.getLogger(__name__)

SCALE, RATIO = (0.2, 1.0), (3 / 4, 4 / 3)
SAMPLES_PER_TASK = 16
BATCHES_AHEAD = 3
MOST_CORRUPT_IN_A_ROW = 1000


@dataclasses.dataclass
class PixelBatch:
    """images uint8 (b, size, size, 3), and the ids of the images they were cut from."""

    images: torch.Tensor
    ids: list[str]


class PixelBatches:
    """Infinite iterator of PixelBatch over `source`, in a new order every epoch.

    Sample number p of an epoch is a function of (seed, epoch, p) alone, so neither the number of threads nor an
    interruption changes it. A corrupt image gives its place to the next readable one of the epoch's order; `corrupt`
    collects the ids. Not for more than one consumer thread. Use it as a context manager, or call `close`.
    """

    def __init__(
        self,
        source: ImageSource,
        batch_size: int,
        image_size: int,
        seed: int,
        workers: int = 2,
        scale: tuple[float, float] = SCALE,
        ratio: tuple[float, float] = RATIO,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("image_size", image_size), ("workers", workers)):
            if value < 1:
                raise UserError(f"{name} must be at least 1, not {value}.")
        if seed < 0:
            raise UserError(f"seed must not be negative, not {seed}.")
        if not (0 < scale[0] <= scale[1] <= 1 and 0 < ratio[0] <= ratio[1]):
            raise UserError(f"scale {scale} must lie within (0, 1] and ratio {ratio} above 0, lower bound first.")
        if len(source) == 0:
            raise UserError("The image source is empty.")
        cv2.setNumThreads(1)  # the threads here are the parallelism
        self.source, self.batch_size, self.image_size, self.seed = source, batch_size, image_size, seed
        self.scale, self.ratio = scale, ratio
        self.corrupt: set[str] = set()
        """Ids of unreadable images met in the batches handed out so far."""
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="pixels")
        self._ahead: deque[tuple[PixelBatch, list[Future[set[str]]]]] = deque()
        self._orders: dict[int, np.ndarray] = {}
        self._handed_out = 0
        self._submitted = 0

    def __iter__(self) -> PixelBatches:
        return self

    def __next__(self) -> PixelBatch:
        while len(self._ahead) < BATCHES_AHEAD:
            self._submit()
        batch, tasks = self._ahead.popleft()
        for task in tasks:
            found = task.result() - self.corrupt
            self.corrupt |= found
            for identity in sorted(found):
                log.warning("Skipped an unreadable image (%d so far): %s", len(self.corrupt), identity)
        self._handed_out += 1
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Position after the batches handed out; what was only decoded ahead does not count. JSON-able."""
        return {
            "batches": self._handed_out,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "images": len(self.source),
            "corrupt": sorted(self.corrupt),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue exactly there. Raises UserError when seed, batch size or number of images differ."""
        for name, mine in (("seed", self.seed), ("batch_size", self.batch_size), ("images", len(self.source))):
            if state[name] != mine:
                raise UserError(
                    f"Cannot resume the image stream: {name} was {state[name]} and is {mine} now; "
                    "use the same data and settings, or start a new run."
                )
        self._drop_ahead()
        self._handed_out = self._submitted = int(state["batches"])
        self.corrupt = set(state["corrupt"])

    def close(self) -> None:
        """Stop the threads. Batches handed out stay valid."""
        self._drop_ahead()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> PixelBatches:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _drop_ahead(self) -> None:
        for _, tasks in self._ahead:
            for task in tasks:
                task.cancel()
        self._ahead.clear()

    def _submit(self) -> None:
        # Always a fresh buffer: consumers may keep batches, and decoding costs far more than the pages.
        images = torch.empty((self.batch_size, self.image_size, self.image_size, 3), dtype=torch.uint8)
        batch = PixelBatch(images, [""] * self.batch_size)
        first = self._submitted * self.batch_size
        needed = {(first + offset) // len(self.source) for offset in (0, self.batch_size - 1)}
        for epoch in range(min(needed), max(needed) + 1):
            if epoch not in self._orders:
                self._orders[epoch] = np.random.default_rng((self.seed, epoch)).permutation(len(self.source))
        # Running tasks hold the orders they were given, so old epochs can go.
        self._orders = {epoch: order for epoch, order in self._orders.items() if epoch >= min(needed)}
        orders = dict(self._orders)
        tasks = [
            self._threads.submit(self._fill, batch, orders, first, slice(start, start + SAMPLES_PER_TASK))
            for start in range(0, self.batch_size, SAMPLES_PER_TASK)
        ]
        self._ahead.append((batch, tasks))
        self._submitted += 1

    def _fill(self, batch: PixelBatch, orders: Mapping[int, np.ndarray], first: int, rows: slice) -> set[str]:
        """Fill those rows of the batch that begins at stream position `first`; returns corrupt ids."""
        corrupt: set[str] = set()
        images = batch.images.numpy()
        for row in range(*rows.indices(self.batch_size)):
            epoch, position = divmod(first + row, len(self.source))
            # Philox takes its key as it is: a generator a sample costs microseconds.
            key = (self.seed << 64) | ((epoch & 0xFFFFFF) << 40) | position
            random = np.random.Generator(np.random.Philox(key=key & (2**128 - 1)))
            image, batch.ids[row] = self._readable(orders[epoch], position, corrupt)
            height, width = image.shape[:2]
            box = random_crop_box(height, width, random, self.scale, self.ratio)
            crop_and_resize(image, box, self.image_size, images[row])
        return corrupt

    def _readable(self, order: np.ndarray, position: int, corrupt: set[str]) -> tuple[np.ndarray, str]:
        attempts = min(len(order), MOST_CORRUPT_IN_A_ROW)
        for attempt in range(attempts):
            index = int(order[(position + attempt) % len(order)])
            identity = self.source.id(index)
            try:
                return self.source.image(index), identity
            except CorruptImage:
                corrupt.add(identity)
        raise UserError(f"{attempts} images in a row are unreadable, the last one {identity}; check the data set.")
