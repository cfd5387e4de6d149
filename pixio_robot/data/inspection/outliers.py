"""Episodes that a person should look at: what is unusual about each, in words.

Unusual is a robust z-score above LIMIT: distance from the median in units of 1.4826 x the median absolute deviation
(Iglewicz and Hoaglin, 1993, who advise 3.5; more here, because lengths and ranges have heavy tails).
"""

from __future__ import annotations

import itertools

import numpy as np

from pixio_robot.data.demos import DemoStore

LIMIT = 5.0
_MAD_TO_STD = 1.4826
_STILL = 0.5
"""The share of frames without any change from which an episode's camera counts as frozen."""


def find_outliers(store: DemoStore) -> dict[int, list[str]]:
    """{episode: what is unusual}. Reads no image; `frozen_cameras` does, for the episodes that are shown anyway."""
    found: dict[int, list[str]] = {}

    def note(values: np.ndarray, what: str) -> None:
        for episode, score in enumerate(robust_scores(values).tolist()):
            if abs(score) > LIMIT:
                found.setdefault(episode, []).append(f"{what} {values[episode]:.3g} (usually {np.median(values):.3g})")

    note(store.lengths.astype(np.float64), "steps:")
    for which, names in (("state", store.spec.state_names), ("actions", store.spec.action_names)):
        read = getattr(store, which)
        extremes = np.stack([_extremes(read(episode)) for episode in range(len(store))])
        for i, name in enumerate(names):
            note(extremes[:, 0, i], f"{which} {name}, smallest value")
            note(extremes[:, 1, i], f"{which} {name}, largest value")
            note(extremes[:, 2, i], f"{which} {name}, largest jump")
    return found


def _extremes(values: np.ndarray) -> np.ndarray:
    """(3, dimensions): minimum, maximum, largest change from one step to the next."""
    jumps = np.abs(np.diff(values, axis=0)).max(0) if len(values) > 1 else np.zeros(values.shape[1])
    return np.stack([values.min(0), values.max(0), jumps]).astype(np.float64)


def robust_scores(values: np.ndarray) -> np.ndarray:
    """(n,) -> (n,). Where half of the values are equal, the deviation is a share of the whole spread instead of 0."""
    distance = values - np.median(values)
    spread = max(_MAD_TO_STD * np.median(np.abs(distance)), 0.05 * float(np.ptp(values)))
    return distance / spread if spread > 0 else np.zeros_like(distance)


def frozen_share(frames: np.ndarray) -> float:
    """Of frames (n, h, w, 3), how many equal the one before."""
    if len(frames) < 2:
        return 0.0
    return float(np.mean([np.array_equal(*pair) for pair in itertools.pairwise(frames)]))


def frozen_camera(camera: str, frames: np.ndarray) -> str | None:
    """What to say of a camera that mostly stands still, or shows one colour only."""
    if (frames == frames[:, :1, :1]).all():
        return f"camera {camera} shows nothing but one colour"
    share = frozen_share(frames)
    return f"camera {camera} repeats {share:.0%} of its frames" if share > _STILL else None
