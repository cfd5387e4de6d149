"""Student's t interval for the mean of a few values."""

from __future__ import annotations

import math
from collections.abc import Sequence


def t_half_width(values: Sequence[float], confidence: float = 0.95) -> float:
    """Half the width of the interval for the mean of at least two values."""
    return t_quantile(len(values) - 1, confidence) * standard_error(values)


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the mean of at least two values."""
    n, mean = len(values), sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n)


def t_quantile(freedom: float, confidence: float) -> float:
    """Number of standard errors that cover `confidence` of the t distribution with `freedom` degrees of freedom."""
    from scipy import stats  # slow to import, and not needed to read settings

    return float(stats.t.ppf(0.5 + confidence / 2, freedom))
