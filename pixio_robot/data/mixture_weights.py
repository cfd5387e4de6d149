"""The share of samples drawn from each of several sources: `data_weights`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pixio_robot.errors import UserError


def normalize_weights(weights: Sequence[float] | None, sizes: Sequence[int], what: str) -> np.ndarray:
    """float64 (n,): the weights, or the sizes if they are None, normalised to sum 1.

    `what` names the sources in errors. Raises UserError for invalid weights.
    """
    shares = np.asarray(sizes if weights is None else weights, np.float64)
    if shares.shape != (len(sizes),) or not (np.isfinite(shares) & (shares >= 0)).all() or shares.sum() <= 0:
        raise UserError(
            f"data_weights={list(weights or [])} must have one non-negative number for each of the {len(sizes)} "
            f"{what}, not all 0."
        )
    return shares / shares.sum()
