"""Minimum, maximum, mean, standard deviation and quantiles of every state and action dimension.

`cached_statistics` caches them inside the store:

    store.zarr/.statistics/<hash of those episodes>.json
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pixio_robot.data.demos.arrays import read_stored_checksum
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.windows import check_episode_numbers
from pixio_robot.errors import UserError
from pixio_robot.files import read_json, write_json

DIRECTORY = ".statistics"
QUANTILE_LEVELS = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
MAX_QUANTILE_ROWS = 4_000_000
"""Rows from which quantiles are computed, 16 MB per dimension; of more, a random sample of about that size."""


@dataclasses.dataclass
class Range:
    """Each (dimensions,), float64; `std` is the population standard deviation, and quantiles are interpolated linearly,
    as in numpy."""

    minimum: np.ndarray
    maximum: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    q01: np.ndarray
    q10: np.ndarray
    q50: np.ndarray
    q90: np.ndarray
    q99: np.ndarray


@dataclasses.dataclass
class Statistics:
    """relative_state, relative_actions: of the windows of a policy that sees or predicts poses relative to the
    gripper's (policies/relative_statistics.py); None for others."""

    state: Range
    actions: Range
    relative_state: Range | None = None
    relative_actions: Range | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            which: {name: value.tolist() for name, value in vars(of).items() if value is not None}
            for which, of in vars(self).items()
            if of is not None
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Statistics:
        return cls(
            **{
                which: Range(**{name: np.array(numbers, np.float64) for name, numbers in value[which].items()})
                for which in (field.name for field in dataclasses.fields(cls))
                if which in ("state", "actions") or which in value
            }
        )


def compute_range(parts: Iterable[np.ndarray], count: int) -> Range:
    """Statistics over the rows of all parts (n, dimensions), at most `count` rows, merged pairwise in one pass (Chan et
    al. 1983)."""
    random, share, sample = np.random.default_rng(0), MAX_QUANTILE_ROWS / max(count, 1), []
    seen, mean, squares = 0, np.zeros(()), np.zeros(())
    minimum, maximum = np.array(np.inf), np.array(-np.inf)
    for part in parts:
        if not len(part):
            continue
        sample.append(part if share >= 1 else part[random.random(len(part)) < share])
        rows = part.astype(np.float64)
        n, part_mean = len(rows), rows.mean(0)
        difference = part_mean - mean
        squares = squares + ((rows - part_mean) ** 2).sum(0) + difference**2 * seen * n / (seen + n)
        mean = mean + difference * n / (seen + n)
        seen += n
        minimum, maximum = np.minimum(minimum, rows.min(0)), np.maximum(maximum, rows.max(0))
    if not seen:
        raise UserError("There are no episodes to compute statistics from: record or select at least one.")
    columns = (np.concatenate([part[:, i] for part in sample]).astype(np.float64) for i in range(len(mean)))
    quantiles = np.stack([np.quantile(column, list(QUANTILE_LEVELS.values())) for column in columns], -1)
    return Range(minimum, maximum, mean, np.sqrt(squares / seen), *quantiles)


def compute_statistics(store: DemoStore, episodes: Iterable[int]) -> Statistics:
    """Statistics of the given episodes only, which should be the training episodes. Raises UserError unless they are
    different episodes of the store."""
    return compute_mixture_statistics([(store, check_episode_numbers(episodes, len(store)).tolist())])


def compute_mixture_statistics(chosen: Sequence[tuple[DemoStore, Sequence[int]]]) -> Statistics:
    """Statistics over these episodes of these stores, each step counted once."""
    pairs = [(store, episode) for store, episodes in chosen for episode in episodes]
    steps = sum(len(store.actions(episode)) for store, episode in pairs)
    return Statistics(
        compute_range((store.state(episode) for store, episode in pairs), steps),
        compute_range((store.actions(episode) for store, episode in pairs), steps),
    )


def cached_statistics(store: DemoStore, episodes: Iterable[int]) -> Statistics:
    """`compute_statistics`, cached on disk for every set of episodes; nothing is written to a read-only store."""
    chosen = check_episode_numbers(episodes, len(store)).tolist()
    path = store.path / DIRECTORY / f"{hash_episodes(store, chosen)}.json"
    if path.is_file():
        return Statistics.from_json(read_json(path))
    statistics = compute_statistics(store, chosen)
    if os.access(store.path, os.W_OK):
        write_json(path, statistics.to_json())
    return statistics


def hash_episodes(store: DemoStore, episodes: Iterable[int]) -> str:
    """Hash of the episodes' numbers, lengths, and state and action contents (by their stored checksums)."""
    lengths = store.lengths.tolist()
    digest = hashlib.sha256()
    for episode in episodes:
        checksums = [read_stored_checksum(store.episode_path(episode) / name, 2).hex() for name in ("state", "actions")]
        digest.update(f"{episode} {lengths[episode]} {' '.join(checksums)}\n".encode())
    return digest.hexdigest()
