"""Minimum, maximum, mean and spread of every state and action dimension, in one pass over the episodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from pixio_robot.data.demos import DemoStore
from pixio_robot.errors import UserError


@dataclasses.dataclass
class Range:
    """Each (dimensions,), float64; `std` is the population's."""

    minimum: np.ndarray
    maximum: np.ndarray
    mean: np.ndarray
    std: np.ndarray


@dataclasses.dataclass
class Statistics:
    state: Range
    actions: Range

    def to_json(self) -> dict[str, Any]:
        return {
            which: {name: value.tolist() for name, value in vars(getattr(self, which)).items()}
            for which in ("state", "actions")
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Statistics:
        return cls(
            **{
                which: Range(**{name: np.array(numbers, np.float64) for name, numbers in value[which].items()})
                for which in ("state", "actions")
            }
        )


def range_of(parts: Iterable[np.ndarray]) -> Range:
    """Over the rows of all parts (n, dimensions); parts are merged pairwise (Chan et al. 1983), so it streams."""
    count, mean, squares = 0, np.zeros(()), np.zeros(())
    minimum, maximum = np.array(np.inf), np.array(-np.inf)
    for part in parts:
        if not len(part):
            continue
        rows = part.astype(np.float64)
        n, part_mean = len(rows), rows.mean(0)
        difference = part_mean - mean
        squares = squares + ((rows - part_mean) ** 2).sum(0) + difference**2 * count * n / (count + n)
        mean = mean + difference * n / (count + n)
        count += n
        minimum, maximum = np.minimum(minimum, rows.min(0)), np.maximum(maximum, rows.max(0))
    if not count:
        raise UserError("There is no episode to compute statistics of: record or choose at least one.")
    return Range(minimum, maximum, mean, np.sqrt(squares / count))


def compute_statistics(store: DemoStore, episodes: Iterable[int]) -> Statistics:
    """Of the named episodes only: those that are trained on."""
    chosen = list(episodes)
    return Statistics(range_of(map(store.state, chosen)), range_of(map(store.actions, chosen)))
