"""Validation of actions, and of states to restore."""

from __future__ import annotations

import numpy as np


def check_step(over: bool, action: np.ndarray, size: int) -> np.ndarray:
    """The action as float64 (size,). Raises ValueError if the episode is `over`, and for another shape or non-finite
    numbers."""
    if over:
        raise ValueError("This episode is over (or none was started): call reset first.")
    return check_finite_vector(action, size, "The action")


def check_finite_vector(
    numbers: np.ndarray, size: int, what: str, parts: str = "", error: type[Exception] = ValueError
) -> np.ndarray:
    """The numbers as float64 (size,). Error messages start with `what` and mention the `parts` of the vector.

    Raises `error` for another shape and for non-finite numbers: ValueError for a bug of the caller (a policy's actions
    have been checked before), UserError for data from a user's file.
    """
    numbers, having = np.asarray(numbers, np.float64), f" ({parts})" if parts else ""
    if numbers.shape != (size,):
        raise error(f"{what} must have shape ({size},){having}, not {numbers.shape}.")
    if not np.isfinite(numbers).all():
        where = int(np.argmin(np.isfinite(numbers)))
        raise error(f"{what} is not finite at index {where}{having}: {numbers[where]}.")
    return numbers
