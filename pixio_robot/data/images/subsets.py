"""Memory-efficient subsets of numbered images, at one bit each: 14 MB for 1e8 images, where a list takes 800 MB."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

LINE_BYTES = 64
"""Chosen images are counted per line of this many bytes; lookups search within a line."""


class ImageSubset(Protocol):
    """A subset of the images 0 ... n - 1 in ascending order; an int64 array of their numbers is one, too."""

    def __len__(self) -> int: ...

    def __getitem__(self, positions: np.ndarray, /) -> np.ndarray:
        """int64 (p,): the numbers at `positions` (int64, p), each in [0, len)."""
        ...


class BitSubset:
    """Built from consecutive blocks of uint8 or bool (b,) that say whether each image is chosen.

    Every block but the last must contain a multiple of 8 images.
    """

    def __init__(self, blocks: Iterable[np.ndarray]) -> None:
        packed = b"".join(np.packbits(block, bitorder="little").tobytes() for block in blocks)
        lines = -(-len(packed) // LINE_BYTES)
        self._lines = np.frombuffer(packed.ljust(lines * LINE_BYTES, b"\0"), np.uint8).reshape(lines, LINE_BYTES)
        words = self._lines.view(np.uint64)
        self._ends = np.cumsum(np.bitwise_count(words).sum(axis=1, dtype=np.int64))
        """Number of chosen images up to the end of each line."""

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, positions: np.ndarray) -> np.ndarray:
        line = np.searchsorted(self._ends, positions, side="right")
        before = np.where(line > 0, self._ends[line - 1], 0)
        bits = np.unpackbits(self._lines[line], axis=1, bitorder="little")
        counts = np.cumsum(bits, axis=1, dtype=np.int16)
        return line * (8 * LINE_BYTES) + np.argmax(counts > (positions - before)[:, None], axis=1)

    def numbers(self) -> np.ndarray:
        """int64 (m,): all chosen images, at 8 bytes each."""
        return np.flatnonzero(np.unpackbits(self._lines, bitorder="little"))


class AllImages:
    """All of `count` images."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, positions: np.ndarray) -> np.ndarray:
        return positions


class ConcatenatedSubset:
    """Subsets of several sources of `counts` images each, numbered consecutively across the sources."""

    def __init__(self, choices: Sequence[ImageSubset], counts: Sequence[int]) -> None:
        self._choices = list(choices)
        self._first = np.cumsum([0, *counts])
        self._ends = np.cumsum([len(choice) for choice in choices])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, positions: np.ndarray) -> np.ndarray:
        source = np.searchsorted(self._ends, positions, side="right")
        numbers = np.empty(len(positions), np.int64)
        for number in np.unique(source).tolist():
            here = source == number
            before = self._ends[number - 1] if number else 0
            numbers[here] = self._choices[number][positions[here] - before] + self._first[number]
        return numbers
