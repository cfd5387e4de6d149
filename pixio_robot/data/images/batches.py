"""Endless batches of random crops, decoded ahead by threads (JPEG decoding and resizing release the GIL)."""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import torch

from pixio_robot.data.images.codec import CorruptImage
from pixio_robot.data.images.crops import crop_and_resize, crop_draws, decode_reduction, random_crop_box, reduced_box
from pixio_robot.data.images.epoch_order import Epoch, EpochOrder, EpochSelection, ImageOrder, OrderPosition
from pixio_robot.data.images.sources import ConcatenatedImages, ImageSource, ReducibleSource
from pixio_robot.errors import UserError

log = logging.getLogger(__name__)

SCALE, RATIO = (0.2, 1.0), (3 / 4, 4 / 3)
SAMPLES_PER_TASK = 16
BATCHES_AHEAD = 3
MAX_CONSECUTIVE_CORRUPT = 1000


@dataclasses.dataclass
class PixelBatch:
    """images uint8 (b, size, size, 3), and the ids of the images that they were cropped from."""

    images: torch.Tensor
    ids: list[str]


class PixelBatches:
    """Infinite iterator of PixelBatch over `source`, in a new order every epoch.

    Sample number p of an epoch depends only on (seed, epoch, p) and the selection, not on the number of threads or on
    interruptions. Each rank takes its share of a step's `world_size` x `batch_size` samples; together the ranks see the
    same samples as one rank with a batch of that size. `selection` chooses the images of each epoch (None: all).
    `order` replaces this order by another, such as `mixture.MixedOrder`, and must not be shared. If this
    process uses a GPU, batches are in pinned memory.

    A corrupt image is replaced by the next readable one in the epoch's order; `corrupt` collects the ids. Only one
    thread may consume the batches. Use it as a context manager, or call `close`.
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
        *,
        rank: int = 0,
        world_size: int = 1,
        selection: EpochSelection | None = None,
        order: EpochOrder | None = None,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("image_size", image_size), ("workers", workers)):
            if value < 1:
                raise UserError(f"{name} must be at least 1, not {value}.")
        if seed < 0:
            raise UserError(f"seed must not be negative, not {seed}.")
        if not (0 < scale[0] <= scale[1] <= 1 and 0 < ratio[0] <= ratio[1]):
            raise UserError(f"scale {scale} must lie within (0, 1] and ratio {ratio} above 0, lower bound first.")
        if not 0 <= rank < world_size:
            raise UserError(f"rank must be at least 0 and below world_size {world_size}, not {rank}.")
        if len(source) == 0:
            raise UserError("The image source is empty.")
        cv2.setNumThreads(1)  # these threads already use all cores
        self.source, self.batch_size, self.image_size, self.seed = source, batch_size, image_size, seed
        self.scale, self.ratio = scale, ratio
        self.rank, self.world_size = rank, world_size
        self.corrupt: set[str] = set()
        """Ids of unreadable images encountered in the batches returned so far."""
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="pixels")
        self._ahead: deque[tuple[PixelBatch, list[Future[set[str]]]]] = deque()
        self._order = ImageOrder(len(source), seed, selection) if order is None else order
        self._handed_out = self._submitted = OrderPosition(0, 0)

    def __iter__(self) -> PixelBatches:
        return self

    def __next__(self) -> PixelBatch:
        while len(self._ahead) < BATCHES_AHEAD:
            self._submit()
        batch, tasks = self._ahead.popleft()
        for task in tasks:
            newly_corrupt = task.result() - self.corrupt
            self.corrupt |= newly_corrupt
            for identity in sorted(newly_corrupt):
                log.warning("Skipped an unreadable image (%d so far): %s", len(self.corrupt), identity)
        self._handed_out = self._order.advance(self._handed_out, self._step_size)
        return batch

    @property
    def _step_size(self) -> int:
        """Samples per step over all ranks."""
        return self.batch_size * self.world_size

    def state_dict(self) -> dict[str, Any]:
        """The position after the batches returned, without those only decoded ahead. JSON-serialisable."""
        return {
            "epoch": self._handed_out.epoch,
            "position": self._handed_out.position,
            "seed": self.seed,
            "samples_a_step": self._step_size,
            "images": len(self.source),
            "corrupt": sorted(self.corrupt),
        } | self._order.identity

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue exactly at a saved position; the number of threads or ranks may differ.

        Raises UserError if the seed, the samples per step (batch size x ranks), the number of images or the weights of
        their sources differ.
        """
        identity = {"seed": self.seed, "samples_a_step": self._step_size, "images": len(self.source)}
        identity |= {"weights": None} | self._order.identity
        for name, value in identity.items():
            if state.get(name) != value:
                raise UserError(
                    f"Cannot resume the image stream: {name} was {state.get(name)} but is now {value}; "
                    "use the same data and settings, or start a new run."
                )
        self._drop_ahead()
        self._handed_out = self._submitted = OrderPosition(int(state["epoch"]), int(state["position"]))
        self.corrupt = set(state["corrupt"])

    @staticmethod
    def merge_states(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """One state of those of all ranks, which differ in the unreadable images that they encountered."""
        return {**states[0], "corrupt": sorted(set().union(*(state["corrupt"] for state in states)))}

    def close(self) -> None:
        """Stop the threads. Batches already returned stay valid."""
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
        # Always a new buffer: consumers may keep batches, and decoding costs far more than the allocation.
        shape = (self.batch_size, self.image_size, self.image_size, 3)
        if torch.cuda.is_initialized():
            images = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        else:
            images = torch.from_numpy(np.empty(shape, np.uint8))  # NumPy requests huge pages
        batch = PixelBatch(images, [""] * self.batch_size)
        first = self._order.advance(self._submitted, self.rank * self.batch_size)
        tasks, row = [], 0
        for epoch, positions in self._order.runs(first, self.batch_size):
            for start in range(0, len(positions), SAMPLES_PER_TASK):
                some = positions[start : start + SAMPLES_PER_TASK]
                tasks.append(self._threads.submit(self._fill, batch, row, epoch, some))
                row += len(some)
        self._ahead.append((batch, tasks))
        self._submitted = self._order.advance(self._submitted, self._step_size)

    def _fill(self, batch: PixelBatch, first_row: int, epoch: Epoch, positions: np.ndarray) -> set[str]:
        """Fill the rows from `first_row` on with the samples at `positions` of the epoch; return the corrupt ids."""
        corrupt: set[str] = set()
        images = batch.images.numpy()
        draws = crop_draws(self.seed, epoch.number, positions)
        samples = zip(positions, epoch.at(positions), draws, strict=True)
        for row, (position, index, own_draws) in enumerate(samples, start=first_row):
            attempts = min(len(epoch), MAX_CONSECUTIVE_CORRUPT)
            for attempt in range(attempts):
                source, i = _find_source(self.source, int(index))
                try:
                    self._cut(source, i, own_draws, images[row])
                    batch.ids[row] = self.source.id(int(index))
                    break
                except CorruptImage:
                    corrupt.add(self.source.id(int(index)))
                    (index,) = epoch.at(np.array([position + attempt + 1]))
            else:
                raise UserError(
                    f"{attempts} consecutive images are unreadable, such as {min(corrupt)}; check the data set."
                )
        return corrupt

    def _cut(self, source: ImageSource, i: int, draws: np.ndarray, out: np.ndarray) -> None:
        """Write a crop of image `i` to `out`, decoding it no larger than the crop needs."""
        if isinstance(source, ReducibleSource):
            box = random_crop_box(*source.size(i), draws, self.scale, self.ratio)
            by = decode_reduction(box, self.image_size)
            crop_and_resize(source.reduced(i, by), reduced_box(box, by), self.image_size, out)
        else:
            image = source.image(i)
            height, width = image.shape[:2]
            box = random_crop_box(height, width, draws, self.scale, self.ratio)
            crop_and_resize(image, box, self.image_size, out)


def _find_source(source: ImageSource, i: int) -> tuple[ImageSource, int]:
    """The innermost source that contains image `i`, and its number there."""
    while isinstance(source, ConcatenatedImages):
        source, i = source.part(i)
    return source, i
