"""How often each of several sources is drawn from: `data_weights`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pixio_robot.errors import UserError


def shares(weights: Sequence[float] | None, sizes: Sequence[int], what: str) -> np.ndarray:
    """float64 (n,), of sum 1: the weights in proportion; None: the sizes. `what` the n are, for people.

    Raises UserError for weights that do not fit.
    """
    given = np.asarray(sizes if weights is None else weights, np.float64)
    if given.shape != (len(sizes),) or not (np.isfinite(given) & (given >= 0)).all() or given.sum() <= 0:
        raise UserError(
            f"data_weights={list(weights or [])} must be one number of at least 0 for each of the {len(sizes)} "
            f"{what}, and not all 0."
        )
    return given / given.sum()
