"""Mixing the images of several sources in proportion to weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pixio_robot.data.images.epoch_order import Epoch, EpochOrder, EpochSelection, ImageOrder, OrderPosition
from pixio_robot.data.mixture_weights import normalize_weights

ROUND_LENGTH = 2**14
"""Number of images in an epoch (round), in which every source has its share to within half an image."""


class MixedOrder(EpochOrder):
    """An epoch is a round of about ROUND_LENGTH images drawn in proportion to the weights. Every source has its own
    epochs, in which each of its images comes once; a round continues each source where the previous one stopped.

    The image at a place is a function of the seed, the weights and the selections alone.
    """

    kept = 16
    """Rounds are short: a stream that reads ahead by several batches of thousands of images uses many at a time."""

    def __init__(
        self, counts: Sequence[int], selections: Sequence[EpochSelection | None], weights: Sequence[float], seed: int
    ) -> None:
        """counts: number of images of every source; images are numbered consecutively across sources. weights: on any
        scale; a source of weight 0 is left out. Raises UserError for invalid weights."""
        weighed = normalize_weights(weights, counts, "sources").tolist()
        super().__init__({"weights": weighed})
        self._seed = seed
        self._first = np.cumsum([0, *counts[:-1]])
        # Different seeds, so that neither sources of equal length nor the rounds are shuffled identically.
        self._sources = [
            ImageOrder(count, seed + 1 + number, selection)
            for number, (count, selection) in enumerate(zip(counts, selections, strict=True))
        ]
        self._drawn = [max(1, round(share * ROUND_LENGTH)) if share else 0 for share in weighed]
        self._known = {0: [OrderPosition(0, 0) for _ in counts]}
        """The place of every source at the beginning of round 0 and of the latest rounds: counting from the start takes
        long where selections make epochs of different lengths."""

    def _begin(self, number: int) -> Epoch:
        """A round."""
        parts = [
            epoch.at(positions) + first
            for source, place, count, first in zip(
                self._sources, self._places(number), self._drawn, self._first, strict=True
            )
            for epoch, positions in source.runs(place, count)
        ]
        images = np.concatenate(parts)
        return Epoch(number, self._seed, len(images), images)

    def _places(self, number: int) -> list[OrderPosition]:
        nearest = max(known for known in self._known if known <= number)
        rounds = number - nearest
        places = [
            source.advance(place, rounds * count) if count else place
            for source, place, count in zip(self._sources, self._known[nearest], self._drawn, strict=True)
        ]
        self._known = {n: known for n, known in self._known.items() if n == 0 or n > number - self.kept}
        self._known[number] = places
        return places
