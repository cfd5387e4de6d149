"""The endless order of images: consecutive epochs, each of which shuffles the images selected for it."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from pixio_robot.data.images.subsets import ImageSubset
from pixio_robot.data.shuffle import Shuffle
from pixio_robot.errors import UserError

MAX_EMPTY_EPOCHS = 100
"""Number of consecutive epochs without any image before an error is raised."""


class EpochSelection(Protocol):
    """Selects the images of every epoch."""

    def epoch(self, seed: int, epoch: int) -> ImageSubset:
        """The numbers of the selected images, a deterministic function of the arguments."""
        ...


@dataclasses.dataclass(frozen=True)
class OrderPosition:
    """A position in the order: `position` images into epoch number `epoch`."""

    epoch: int
    position: int


class Epoch:
    """The order of one epoch: all of `count` images, or the selected ones, once each in random order."""

    def __init__(self, number: int, seed: int, count: int, selected: ImageSubset | None) -> None:
        self.number = number
        self._selected = selected
        self._shuffle = Shuffle(count if selected is None else len(selected), seed, number)

    def __len__(self) -> int:
        return len(self._shuffle)

    def at(self, positions: np.ndarray) -> np.ndarray:
        """int64 (n,): the numbers of the images at `positions` (int64, n), wrapping around at the end."""
        shuffled = self._shuffle.at(positions % len(self))
        return shuffled if self._selected is None else self._selected[shuffled]


class EpochOrder(abc.ABC):
    """An endless sequence of epochs. An epoch is a function of its number alone, whatever was requested before."""

    kept = 2
    """Number of epochs that are kept: a batch may span two of them, and streams read ahead."""

    def __init__(self, identity: Mapping[str, Any] | None = None) -> None:
        """identity: JSON values that must be equal to resume a stream, in addition to the images and the seed."""
        self.identity = dict(identity or {})
        self._epochs: dict[int, Epoch] = {}

    @abc.abstractmethod
    def _begin(self, number: int) -> Epoch: ...

    def epoch(self, number: int) -> Epoch:
        if number not in self._epochs:
            self._epochs = {n: epoch for n, epoch in self._epochs.items() if number - self.kept < n < number}
            self._epochs[number] = self._begin(number)
        return self._epochs[number]

    def advance(self, start: OrderPosition, count: int) -> OrderPosition:
        """The position `count` images later."""
        epoch, position = start.epoch, start.position + count
        if (length := self._constant_length()) is not None:
            more, position = divmod(position, length)
            return OrderPosition(epoch + more, position)
        while position >= (length := len(self.epoch(epoch))):
            epoch, position = epoch + 1, position - length
        return OrderPosition(epoch, position)

    def _constant_length(self) -> int | None:
        """The number of images per epoch if it is the same for all epochs, else None."""
        return None

    def runs(self, start: OrderPosition, count: int) -> Iterator[tuple[Epoch, np.ndarray]]:
        """Yield (epoch, positions int64) for `count` images from `start` on, one pair per epoch that they span."""
        while count:
            epoch = self.epoch(start.epoch)
            run = min(count, len(epoch) - start.position)
            yield epoch, np.arange(start.position, start.position + run)
            count -= run
            start = self.advance(start, run)


class ImageOrder(EpochOrder):
    """Shuffled epochs over `count` images: image number p of an epoch depends on (seed, epoch, p) and the selection."""

    def __init__(self, count: int, seed: int, selection: EpochSelection | None) -> None:
        super().__init__()
        self._count, self._seed, self._selection = count, seed, selection
        self._empty = 0

    def _constant_length(self) -> int | None:
        return self._count if self._selection is None else None

    def _begin(self, number: int) -> Epoch:
        selected = None if self._selection is None else self._selection.epoch(self._seed, number)
        # With few frames accepted at random, an epoch may have none; it is skipped.
        self._empty = self._empty + 1 if selected is not None and len(selected) == 0 else 0
        if self._empty > MAX_EMPTY_EPOCHS:
            raise UserError(
                f"The selection accepts no image at all in {self._empty} epochs up to epoch {number}; loosen its "
                "thresholds."
            )
        return Epoch(number, self._seed, self._count, selected)
