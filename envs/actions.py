"""What every environment asks of an action."""

from __future__ import annotations

import numpy as np


def checked_action(action: np.ndarray, size: int) -> np.ndarray:
    """The action as float64 (size,). Raises ValueError for another shape, and for numbers that are not finite."""
    action = np.asarray(action, np.float64)
    if action.shape != (size,):
        raise ValueError(f"The action must have the shape ({size},), not {action.shape}.")
    if not np.isfinite(action).all():
        raise ValueError(f"The action is not finite: {action}.")
    return action
