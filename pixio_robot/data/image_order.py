"""The endless order in which images are shown: epoch after epoch, each shuffled, each of the frames it selects."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from pixio_robot.data.chosen import Chosen
from pixio_robot.data.shuffle import Shuffle
from pixio_robot.errors import UserError

MOST_EMPTY = 100
"""Epochs without any image, one after the other, before something is taken to be wrong."""


class EpochSelection(Protocol):
    """Decides anew for every epoch which images it shows."""

    def epoch(self, seed: int, epoch: int) -> Chosen:
        """Numbers of the images, always the same for the same arguments."""
        ...


@dataclasses.dataclass(frozen=True)
class Place:
    """So many images into that epoch."""

    epoch: int
    position: int


class Epoch(Protocol):
    """The order of one epoch."""

    number: int

    def __len__(self) -> int: ...

    def at(self, positions: np.ndarray) -> np.ndarray:
        """int64 (n,): numbers of the images at `positions` (int64, n); past the end it begins anew."""
        ...


class ShuffledEpoch:
    """Each of `count` images, or of those selected, once."""

    def __init__(self, number: int, seed: int, count: int, selected: Chosen | None) -> None:
        self.number = number
        self._selected = selected
        self._shuffle = Shuffle(count if selected is None else len(selected), seed, number)

    def __len__(self) -> int:
        return len(self._shuffle)

    def at(self, positions: np.ndarray) -> np.ndarray:
        found = self._shuffle.at(positions % len(self))
        return found if self._selected is None else self._selected[found]


class Order(abc.ABC):
    """Epoch after epoch. What stands in one is a function of its number alone, whatever was asked for before."""

    def __init__(self, identity: Mapping[str, Any] | None = None) -> None:
        """identity: JSON values that must be the same for a stream to go on, beside the images and the seed."""
        self.identity = dict(identity or {})
        self._epochs: dict[int, Epoch] = {}

    @abc.abstractmethod
    def _begin(self, number: int) -> Epoch: ...

    def epoch(self, number: int) -> Epoch:
        if number not in self._epochs:
            # The epoch before may still be asked for where two of them meet; older ones can go.
            self._epochs = {kept: epoch for kept, epoch in self._epochs.items() if kept == number - 1}
            self._epochs[number] = self._begin(number)
        return self._epochs[number]

    def advance(self, place: Place, count: int) -> Place:
        """The place `count` images later."""
        epoch, position = place.epoch, place.position + count
        if (length := self._constant_length()) is not None:
            more, position = divmod(position, length)
            return Place(epoch + more, position)
        while position >= (length := len(self.epoch(epoch))):
            epoch, position = epoch + 1, position - length
        return Place(epoch, position)

    def _constant_length(self) -> int | None:
        """Images of every epoch, where all have the same number."""
        return None

    def runs(self, place: Place, count: int) -> Iterator[tuple[Epoch, np.ndarray]]:
        """(epoch, positions int64) of `count` images from `place` on: one pair, or more where epochs meet."""
        while count:
            epoch = self.epoch(place.epoch)
            here = min(count, len(epoch) - place.position)
            yield epoch, np.arange(place.position, place.position + here)
            count -= here
            place = self.advance(place, here)


class ImageOrder(Order):
    """Order number p of an epoch is a function of (seed, epoch, p) and the selection alone."""

    def __init__(self, count: int, seed: int, selection: EpochSelection | None) -> None:
        super().__init__()
        self._count, self._seed, self._selection = count, seed, selection
        self._empty = 0

    def _constant_length(self) -> int | None:
        return self._count if self._selection is None else None

    def _begin(self, number: int) -> ShuffledEpoch:
        selected = None if self._selection is None else self._selection.epoch(self._seed, number)
        # Of few frames that are accepted by chance, an epoch may have none: it is passed over.
        self._empty = self._empty + 1 if selected is not None and len(selected) == 0 else 0
        if self._empty > MOST_EMPTY:
            raise UserError(
                f"The selection accepts no image at all in {self._empty} epochs up to epoch {number}; loosen its "
                "thresholds."
            )
        return ShuffledEpoch(number, self._seed, self._count, selected)
