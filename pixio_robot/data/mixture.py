"""Batches of windows from several demonstration stores, drawn by weight."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch

from pixio_robot.data.demos.spec_differences import describe_differences
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.loading import DemoWindows, rank_slice
from pixio_robot.data.mixture_weights import normalize_weights
from pixio_robot.data.prefetch import PrefetchingIterator
from pixio_robot.errors import UserError
from pixio_robot.types import Batch, DemoSpec, Features, Observation, join_several


class MixedBatches(PrefetchingIterator):
    """An infinite iterator of `Batch`. Every row is drawn independently, with replacement: first a store, by `weights`
    (None: by its number of windows, so that every window is equally likely), then one of its windows. Either all parts
    have goals (`DemoWindows(goals=)`), or none.
    """

    def __init__(
        self,
        parts: Sequence[DemoWindows],
        *,
        batch_size: int,
        seed: int,
        weights: Sequence[float] | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Raises UserError for weights that do not match the stores, and for a batch that cannot be divided among the
        processes."""
        super().__init__()
        self._parts = list(parts)
        self._weights = normalize_weights(weights, [len(part) for part in parts], "stores")
        self._batch_size, self._seed = batch_size, seed
        self._mine = rank_slice(batch_size, rank, world_size)

    @property
    def windows(self) -> int:
        return sum(len(part) for part in self._parts)

    def _identity(self) -> dict[str, Any]:
        sizes = [len(part) for part in self._parts]
        return {"seed": self._seed, "batch_size": self._batch_size, "windows": sizes, "weights": self._weights.tolist()}

    def _batch(self, number: int) -> Batch:
        return self.draw(np.random.default_rng([self._seed, number]), self._batch_size, self._mine)

    def draw(self, random: np.random.Generator, count: int, rows: slice = slice(None)) -> Batch:
        """`rows` of a batch of `count` windows, grouped by store."""
        counts = random.multinomial(count, self._weights)
        batches = []
        before = np.cumsum(counts) - counts
        first, stop, _ = rows.indices(count)
        for part, size, start in zip(self._parts, counts.tolist(), before.tolist(), strict=True):
            windows, views = random.integers(0, len(part), size), part.draw_views(random, size)
            chosen = slice(max(first - start, 0), max(min(stop - start, size), 0))
            if len(windows[chosen]):
                batches.append(part.gather(windows[chosen], None if views is None else views[:, chosen]))
        return _concatenate_batches(batches)


def _concatenate_batches(batches: Sequence[Batch]) -> Batch:
    """Concatenate several batches, in order."""
    observations = [batch.observation for batch in batches]
    first = observations[0]

    def features(camera: str) -> Features:
        parts = [one.features[camera] for one in observations]
        if len(crops := {part.crop for part in parts}) > 1:
            raise UserError(f"Features of {camera!r} were cached for different crops of the images: {crops}.")
        return Features(
            torch.cat([part.cls for part in parts]), torch.cat([part.patches for part in parts]), parts[0].crop
        )

    return Batch(
        Observation(
            {camera: torch.cat([one.images[camera] for one in observations]) for camera in first.images},
            torch.cat([one.state for one in observations]),
            {camera: features(camera) for camera in first.features},
            None if first.goal is None else torch.cat([one.goal for one in observations if one.goal is not None]),
        ),
        torch.cat([batch.actions for batch in batches]),
        torch.cat([batch.ignored for batch in batches]),
    )


def common_spec(stores: Sequence[DemoStore], cameras: Collection[str] | None = None) -> DemoSpec:
    """The DemoSpec shared by all stores; tasks, sources and licences may differ and are all listed. `cameras`: those
    that are used, default all; stores may differ in the others, of which the result has those that all stores have.

    Raises UserError naming every other field that differs.
    """

    def seen(spec: DemoSpec) -> DemoSpec:
        used = {name: camera for name, camera in spec.cameras.items() if cameras is None or name in cameras}
        return dataclasses.replace(spec, task=stores[0].spec.task, cameras=used)

    specs = [store.spec for store in stores]
    everywhere = {name: camera for name, camera in specs[0].cameras.items() if all(name in s.cameras for s in specs)}
    for store in stores[1:]:
        if differences := describe_differences(seen(specs[0]), seen(store.spec), "A", "B"):
            of_cameras = f" To use those that all have: policy.conditioning.cameras=[{','.join(everywhere)}]."
            raise UserError(
                f"One policy cannot learn from both {stores[0].path} (A) and {store.path} (B). {differences}"
                f"{of_cameras if everywhere and set(store.spec.cameras) != set(specs[0].cameras) else ''}"
            )
    joined = {name: join_several(getattr(spec, name) for spec in specs) for name in ("task", "source", "licence")}
    return dataclasses.replace(specs[0], cameras=everywhere, **joined)
