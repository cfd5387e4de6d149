"""Round numbers for the axes of charts."""

from __future__ import annotations

import math


def round_step(smallest: float) -> float:
    """The smallest 1, 2, 2.5 or 5 times a power of ten that is at least `smallest`, which is positive."""
    unit = 10.0 ** math.floor(math.log10(smallest))
    return next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= smallest * (1 - 1e-9))
