"""Finding the episodes that a person should look at, with a text saying what is unusual about each.

A value is unusual if its robust z-score is above LIMIT (Iglewicz and Hoaglin, 1993, recommend 3.5; more here, because
lengths and ranges have heavy tails). The score is the distance from the median in units of 1.4826 x the median absolute
deviation or 1.2533 x the mean absolute deviation, whichever is larger; the latter avoids false alarms for values that
are mostly at a limit and for small numbers of episodes.
"""

from __future__ import annotations

import itertools

import numpy as np

from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.stats import cached_statistics

LIMIT = 5.0
_MEDIAN_TO_STD, _MEAN_TO_STD = 1.4826, 1.2533
_STILL = 0.5
"""A camera counts as frozen in an episode if more than this fraction of its frames repeat the one before."""


def find_outliers(store: DemoStore) -> dict[int, list[str]]:
    """{episode: what is unusual}. Does not read images; for those, see `frozen_camera`."""
    outliers: dict[int, list[str]] = {}

    def note(values: np.ndarray, unusual: np.ndarray, what: str) -> None:
        for episode in np.flatnonzero(unusual).tolist():
            outliers.setdefault(episode, []).append(f"{what} {values[episode]:.3g} (usually {np.median(values):.3g})")

    lengths = store.lengths.astype(np.float64)
    note(lengths, np.abs(robust_scores(lengths)) > LIMIT, "steps:")
    statistics = cached_statistics(store, range(len(store)))
    for which, names in (("state", store.spec.state_names), ("actions", store.spec.action_names)):
        read, std = getattr(store, which), getattr(statistics, which).std
        extremes = np.stack([_extremes(read(episode)) for episode in range(len(store))])
        for i, name in enumerate(names):
            low, high, jump = extremes[:, :, i].T
            # Only values beyond the others' range count; staying well inside it is not unusual.
            note(low, robust_scores(low, std[i]) < -LIMIT, f"{which} {name}, smallest value")
            note(high, robust_scores(high, std[i]) > LIMIT, f"{which} {name}, largest value")
            note(jump, robust_scores(jump, std[i]) > LIMIT, f"{which} {name}, largest jump")
    return outliers


def _extremes(values: np.ndarray) -> np.ndarray:
    """(3, dimensions): minimum, maximum, largest change from one step to the next."""
    jumps = np.abs(np.diff(values, axis=0)).max(0) if len(values) > 1 else np.zeros(values.shape[1])
    return np.stack([values.min(0), values.max(0), jumps]).astype(np.float64)


def robust_scores(values: np.ndarray, least_spread: float = 0.0) -> np.ndarray:
    """Robust z-scores: (n,) -> (n,)."""
    distance = values - np.median(values)
    size = np.abs(distance)
    spread = max(_MEDIAN_TO_STD * np.median(size), _MEAN_TO_STD * size.mean(), least_spread)
    return distance / spread if spread > 0 else distance


def frozen_share(frames: np.ndarray) -> float:
    """The fraction of frames (n, h, w, 3) that equal the one before."""
    if len(frames) < 2:
        return 0.0
    return float(np.mean([np.array_equal(*pair) for pair in itertools.pairwise(frames)]))


def frozen_camera(camera: str, frames: np.ndarray) -> str | None:
    """A remark for a camera whose picture is mostly frozen or a single colour, else None."""
    if (frames == frames[:, :1, :1]).all():
        return f"camera {camera} shows a single colour only"
    share = frozen_share(frames)
    return f"camera {camera} repeats {share:.0%} of its frames" if share > _STILL else None
