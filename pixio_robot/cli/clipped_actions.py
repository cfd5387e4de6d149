"""Whether an environment clips actions of the demonstrations, for a note before a policy is evaluated in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from envs.config import EnvConfig
from envs.spec import clip_bounds
from envs.tasks import THIRD_PARTY

SLACK = 0.01
"""Actions may exceed the bounds by this share of the distance between them: rounding, or a joystick's noise."""
MAX_NAMED = 3


def clipped_actions_note(
    names: Sequence[str], low: Sequence[float] | np.ndarray, high: Sequence[float] | np.ndarray, env: EnvConfig
) -> str:
    """A sentence if actions of the demonstrations, of which low and high are the extremes, lie beyond the environment's
    bounds, so that it executes others; else empty."""
    lowest, highest = clip_bounds(env)
    if len(lowest) != len(names):  # an error, told elsewhere
        return ""
    slack = np.nan_to_num(SLACK * (highest - lowest), posinf=0.0)
    clipped = np.flatnonzero((np.asarray(low) < lowest - slack) | (np.asarray(high) > highest + slack))
    if not len(clipped):
        return ""
    parts = [f"{names[i]} {low[i]:.3g} to {high[i]:.3g}" for i in clipped[:MAX_NAMED].tolist()]
    more = f", and {len(clipped) - MAX_NAMED} more" if len(clipped) > MAX_NAMED else ""
    bounds = sorted({f"{lowest[i]:.3g} to {highest[i]:.3g}" for i in clipped.tolist()})
    remedy = ""
    if env.simulator in THIRD_PARTY:
        remedy = (
            ". If it was recorded with such actions, its bounds are too narrow: env.clip_actions=false passes them as "
            "they are"
        )
    return (
        f"the environment clips actions that the demonstrations contain: {', '.join(parts)}{more} "
        f"(its bounds: {', '.join(bounds)}){remedy}"
    )
