"""What every environment asks of a state to go on from."""

from __future__ import annotations

import numpy as np

from pixio_robot.errors import UserError


def checked_state(state: np.ndarray, size: int, whose: str, parts: str) -> np.ndarray:
    """The state as float64 (size,). Raises UserError, which says `whose` it should be and of which `parts`, for another
    shape, and for numbers that are not finite."""
    state = np.asarray(state, np.float64)
    if state.shape != (size,):
        raise UserError(f"A state of {whose} has {size} numbers ({parts}), not the shape {state.shape}.")
    if not np.isfinite(state).all():
        raise UserError(f"The state of {whose} is not finite at number {int(np.argmin(np.isfinite(state)))} ({parts}).")
    return state
