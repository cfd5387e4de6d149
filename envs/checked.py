"""What every environment asks of an action, and of a state to go on from."""

from __future__ import annotations

import numpy as np


def finite_vector(
    numbers: np.ndarray, size: int, what: str, parts: str = "", error: type[Exception] = ValueError
) -> np.ndarray:
    """The numbers as float64 (size,). `what` they are begins the message, which names the `parts` that they have.

    Raises `error` for another shape and for numbers that are not finite: ValueError is a caller's mistake (actions of
    a policy have been looked at before), UserError tells of what came from a user's file.
    """
    numbers, having = np.asarray(numbers, np.float64), f" ({parts})" if parts else ""
    if numbers.shape != (size,):
        raise error(f"{what} must have the shape ({size},){having}, not {numbers.shape}.")
    if not np.isfinite(numbers).all():
        where = int(np.argmin(np.isfinite(numbers)))
        raise error(f"{what} is not finite at number {where}{having}: {numbers[where]}.")
    return numbers
