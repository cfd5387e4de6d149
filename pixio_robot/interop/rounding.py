"""Conversion of a data set's numbers to the float32 of demonstration stores."""

from __future__ import annotations

import numpy as np


class RoundingTracker:
    """Converts arrays, and keeps track of those that lost something by it."""

    def __init__(self) -> None:
        self._rounded: dict[str, None] = {}

    def float32(self, name: str, values: np.ndarray) -> np.ndarray:
        """`values` in float32, which cannot hold all float64 numbers and integers."""
        small = values.astype(np.float32)
        if not np.array_equal(small.astype(values.dtype), values, equal_nan=values.dtype.kind == "f"):
            self._rounded[name] = None
        return small

    def notes(self) -> list[str]:
        return [f"rounded to float32: {', '.join(sorted(self._rounded))}"] if self._rounded else []
