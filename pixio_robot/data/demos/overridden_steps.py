"""Steps in which something else than the recorded action was executed: a mistake of the expert, another hand's push.

The recorded action there is still the right one for what is seen. But the later actions react to what was done in its
place, which nothing foretells: a chunk of actions that is predicted before the step cannot, and should not, contain
them. (Predicted as a distribution, they would be drawn, and the policy would react to mistakes that do not happen.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pixio_robot.errors import UserError

OVERRIDDEN_STEPS = "overridden_steps"
"""Key of an episode's info: the numbers of these steps. Absent: none are known."""


def parse_overridden_steps(info: Mapping[str, Any], length: int, where: str) -> np.ndarray:
    """Whether each step was overridden, bool (length,), from an episode's info. `where` names the episode in the
    UserError that is raised unless the entry is a list of step numbers."""
    steps = info.get(OVERRIDDEN_STEPS, [])
    if not isinstance(steps, list) or not all(type(step) is int and 0 <= step < length for step in steps):
        raise UserError(f"{where}: info.{OVERRIDDEN_STEPS} must list numbers of its steps, 0..{length - 1}: {steps!r}.")
    overridden = np.zeros(length, bool)
    overridden[steps] = True
    return overridden


def cut_overridden_steps(info: Mapping[str, Any], length: int, first: int, last: int) -> dict[str, Any]:
    """The entry for an episode of which the steps from `first` up to but excluding `last` are kept; empty if there is
    none. Raises UserError as `parse_overridden_steps`."""
    if OVERRIDDEN_STEPS not in info:
        return {}
    kept = parse_overridden_steps(info, length, "An episode")[first:last]
    return {OVERRIDDEN_STEPS: np.flatnonzero(kept).tolist()}


def subsample_overridden_steps(info: Mapping[str, Any], length: int, stride: int) -> dict[str, Any]:
    """The entry for an episode of which every `stride`-th step is kept, which stands for the steps up to the next;
    empty if there is none. Raises UserError as `parse_overridden_steps`."""
    if OVERRIDDEN_STEPS not in info:
        return {}
    steps = np.flatnonzero(parse_overridden_steps(info, length, "An episode"))
    return {OVERRIDDEN_STEPS: np.unique(steps // stride).tolist()}
