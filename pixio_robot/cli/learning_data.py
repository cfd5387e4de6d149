"""What a policy learns from: one store of demonstrations or several, split, measured, and as streams of batches."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pixio_robot.cli.learned import mark
from pixio_robot.data.demo_edit import task_of
from pixio_robot.data.demos import DEFAULT_RAM_BYTES, DemoStore
from pixio_robot.data.features import FeatureCache
from pixio_robot.data.goals import Goals, one_hot_goals, read_goals
from pixio_robot.data.loading import DemoBatches
from pixio_robot.data.mixture import MixedBatches, common_spec, statistics_over
from pixio_robot.data.stats import Statistics
from pixio_robot.data.windows import split_episodes
from pixio_robot.errors import UserError
from pixio_robot.training.distributed import Processes, current
from pixio_robot.types import DemoSpec, Observation


@dataclass
class Demonstrations:
    """Stores, and which of their episodes are trained on and which held out."""

    stores: list[DemoStore]
    training: list[list[int]]
    validation: list[list[int]]
    spec: DemoSpec
    statistics: Statistics
    """Of the training episodes alone."""
    goals: Goals
    """Empty where there is one task and nobody said what is wanted in it."""
    weights: list[float] | None
    marks: set[str]
    """Of the episodes that are trained on (`pixio_robot.cli.learned`)."""

    @property
    def seeds(self) -> list[int]:
        return sorted({seed for store in self.stores for seed in store.seeds})

    def streams(
        self, policy: Any, features: list[FeatureCache] | None, *, batch_size: int, seed: int, random_views: bool
    ) -> tuple[DemoBatches | MixedBatches, DemoBatches | MixedBatches | None]:
        """Batches to train on, and batches of the episodes that were held out: this process's part of each."""

        def of(store: int, episodes: list[int], views: bool, processes: Processes) -> DemoBatches:
            return DemoBatches.of_policy(
                policy,
                self.stores[store],
                batch_size=batch_size,
                seed=seed,
                episodes=episodes,
                features=None if features is None else features[store],
                random_views=views,
                rank=processes.rank,
                world_size=processes.count,
            )

        def stream(chosen: list[list[int]], views: bool, processes: Processes) -> DemoBatches | MixedBatches:
            used = [store for store, episodes in enumerate(chosen) if episodes]
            if len(self.stores) == 1 and not self.goals:
                return of(0, chosen[0], views, processes)
            return MixedBatches(
                [of(store, chosen[store], views, Processes()) for store in used],
                batch_size=batch_size,
                seed=seed,
                weights=None if self.weights is None else [self.weights[store] for store in used],
                goals=[self.goals[self.stores[store].spec.task] for store in used] if self.goals else None,
                rank=processes.rank,
                world_size=processes.count,
            )

        held_out = None
        if any(self.validation):
            held_out = stream(self.validation, False, Processes())
            sharing = current().sharing(min(batch_size, held_out.windows))
            if sharing.count > 1:
                held_out = stream(self.validation, False, sharing)
        return stream(self.training, random_views, current()), held_out


def open_demonstrations(
    paths: Sequence[str],
    *,
    weights: list[float] | None,
    goals: str | None,
    validation_share: float,
    seed: int,
    learned: Collection[str] = (),
) -> Demonstrations:
    """learned: marks of episodes (`pixio_robot.cli.learned`) that are not to be held out, as the policy knows them.

    Raises UserError for stores that are empty or do not go together, for goals that do not fit the tasks, and where
    every episode was learned though some are to be held out.
    """
    # Together they take no more than one would.
    stores = [DemoStore.open(path, ram_bytes=DEFAULT_RAM_BYTES // len(paths)) for path in paths]
    for store in stores:
        if len(store) == 0:
            raise UserError(f"{store.path} holds no episode yet; `pixio-robot collect` records some.")
        within = sorted({task_of(store, number) for number in range(len(store))})
        if len(within) > 1 and current().rank == 0:
            print(
                f"The episodes of {store.path} are of {len(within)} tasks, and the policy is not told of which. It is "
                "where each has a store of its own, data=[A,B]: "
                f"`data filter {store.path} out=A where='task == \"{within[0]}\"'`."
            )
    if weights is not None and len(weights) != len(stores):
        raise UserError(f"data_weights={weights} must be one number for each of the {len(stores)} stores in data.")
    spec = common_spec(stores)
    tasks = list(dict.fromkeys(store.spec.task for store in stores))
    known = read_goals(goals, tasks) if goals is not None else one_hot_goals(tasks) if len(tasks) > 1 else {}
    marks = [[mark(store, number) for number in range(len(store))] for store in stores]
    before = [{number for number, its in enumerate(of_store) if its in learned} for of_store in marks]
    split = [split_episodes(len(store), validation_share, seed, its) for store, its in zip(stores, before, strict=True)]
    if validation_share > 0 and any(before) and not any(held_out for _, held_out in split):
        raise UserError(
            f"initial_policy has learned every episode of {', '.join(paths)}, so that none can be held out: set "
            "validation_share=0."
        )
    training = [episodes for episodes, _ in split]
    return Demonstrations(
        stores,
        training,
        [episodes for _, episodes in split],
        spec,
        statistics_over(list(zip(stores, training, strict=True))),
        known,
        weights,
        {of_store[number] for of_store, episodes in zip(marks, training, strict=True) for number in episodes},
    )


def some_windows(stream: DemoBatches | MixedBatches, count: int, batch_size: int, seed: int) -> list[Observation]:
    """Observations of `count` training windows, in batches."""
    random = np.random.default_rng(seed)
    if isinstance(stream, MixedBatches):
        return [stream.draw(random, batch_size).observation for _ in range(count // batch_size)]
    chosen = random.integers(0, stream.windows, count).reshape(-1, batch_size)
    return [stream.gather(part).observation for part in chosen]
