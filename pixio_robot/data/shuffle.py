"""A shuffled order that is computed, not stored: shuffling 1e8 frames takes no memory.

A Feistel network permutes the numbers below a power of two; values past the end are permuted again until they are in
range (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002, sections 3 and 4).
"""

from __future__ import annotations

import numpy as np

ROUNDS = 8
LEAST_BITS = 6  # in a smaller domain the network reaches too few of the possible orders


class Shuffle:
    """The permutation of 0..count-1 determined by (seed, epoch)."""

    def __init__(self, count: int, seed: int, epoch: int) -> None:
        self._count = count
        bits = max(LEAST_BITS, (count - 1).bit_length())
        self._low_bits = np.uint64((bits + 1) // 2)
        self._low_mask = np.uint64((1 << ((bits + 1) // 2)) - 1)
        self._high_mask = np.uint64((1 << (bits // 2)) - 1)
        self._keys = np.random.default_rng((seed, epoch)).integers(0, 2**64, ROUNDS, np.uint64)

    def __len__(self) -> int:
        return self._count

    def at(self, positions: np.ndarray) -> np.ndarray:
        """int64 (n,): the indices at `positions` (int64, n, each below the count)."""
        values = self._network(positions.astype(np.uint64))
        outside = np.flatnonzero(values >= self._count)
        while len(outside):
            values[outside] = self._network(values[outside])
            outside = outside[values[outside] >= self._count]
        return values.astype(np.int64)

    def _network(self, values: np.ndarray) -> np.ndarray:
        low, high = values & self._low_mask, values >> self._low_bits
        for number, key in enumerate(self._keys):
            if number % 2:
                low = low ^ (splitmix64(high + key) & self._low_mask)
            else:
                high = high ^ (splitmix64(low + key) & self._high_mask)
        return (high << self._low_bits) | low


def splitmix64(values: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): every output bit depends on every input bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
