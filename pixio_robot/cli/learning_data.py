"""Training data of a policy: demonstration stores with split and statistics, and their streams of batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pixio_robot.cli.held_out import BY_SHARE, Division, divided
from pixio_robot.data.demo_marks import mark
from pixio_robot.data.demo_tasks import tasks_of
from pixio_robot.data.demos import DEFAULT_RAM_BYTES, DemoStore
from pixio_robot.data.features import FeatureCache
from pixio_robot.data.goals import Goals, one_hot_goals, read_goals
from pixio_robot.data.loading import DemoBatches
from pixio_robot.data.mixture import MixedBatches, common_spec, statistics_over
from pixio_robot.data.stats import Statistics
from pixio_robot.errors import UserError
from pixio_robot.training.distributed import Processes, current
from pixio_robot.types import SEVERAL, DemoSpec, Observation


@dataclass
class Demonstrations:
    """Stores with their training and held-out episodes; the last stores may be held out completely."""

    stores: list[DemoStore]
    training: list[list[int]]
    validation: list[list[int]]
    spec: DemoSpec
    statistics: Statistics
    """Statistics of the training episodes only."""
    goals: Goals
    """Task -> goal; empty for a policy without task conditioning: tell_task=false, or a single task without a goals
    file."""
    tasks: list[list[str]]
    """Task of every episode of every store."""
    weights: list[float] | None
    """Sampling weights of the training stores."""
    marks: set[str]
    """Marks of the training episodes (`pixio_robot.data.demo_marks`)."""

    trained_stores: int
    """Number of stores to train on; they come first in `stores`."""

    @property
    def seeds(self) -> list[int]:
        return sorted({seed for store in self.stores for seed in store.seeds})

    def streams(
        self, policy: Any, features: list[FeatureCache] | None, *, batch_size: int, seed: int, random_views: bool
    ) -> tuple[DemoBatches | MixedBatches, DemoBatches | MixedBatches | None]:
        """This process's share of the training batches and of the held-out batches."""

        unknown = next(iter(self.goals.values()), [])

        def of(store: int, episodes: list[int], views: bool, processes: Processes) -> DemoBatches:
            return DemoBatches.of_policy(
                policy,
                self.stores[store],
                batch_size=batch_size,
                seed=seed,
                episodes=episodes,
                features=None if features is None else features[store],
                # Episodes that are neither trained on nor held out may have an unknown task.
                goals=[self.goals.get(task, unknown) for task in self.tasks[store]] if self.goals else None,
                random_views=views,
                rank=processes.rank,
                world_size=processes.count,
            )

        def stream(chosen: list[list[int]], views: bool, processes: Processes) -> DemoBatches | MixedBatches:
            used = [store for store, episodes in enumerate(chosen) if episodes]
            if len(used) == 1 and not self.goals and 1 in (len(self.stores), self.trained_stores):
                return of(used[0], chosen[used[0]], views, processes)
            weighed = self.weights is not None and used[-1] < len(self.weights)
            return MixedBatches(
                [of(store, chosen[store], views, Processes()) for store in used],
                batch_size=batch_size,
                seed=seed,
                weights=[self.weights[store] for store in used] if self.weights and weighed else None,
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
    tell_task: bool = True,
    validation_share: float,
    seed: int,
    learned: Collection[str] = (),
    division: Division = BY_SHARE,
) -> Demonstrations:
    """goals: file with a goal vector for each task. tell_task: whether the policy is conditioned on the task.
    learned: marks of episodes (`pixio_robot.data.demo_marks`) that must not be held out, because the initial policy
    was trained on them. division: explicit selection of training and held-out episodes, instead of `validation_share`.

    Raises UserError for empty or incompatible stores, for goals that do not match the tasks, if episodes are to be
    held out but all are in `learned`, and for a division that leaves none.
    """
    count, paths = len(paths), [*paths, *division.stores]
    # The memory limit of a single store is shared among all.
    stores = [DemoStore.open(path, ram_bytes=DEFAULT_RAM_BYTES // len(paths)) for path in paths]
    for store in stores:
        if len(store) == 0:
            raise UserError(f"{store.path} contains no episodes; record some with `pixio-robot collect`.")
    if weights is not None and len(weights) != count:
        raise UserError(f"data_weights={weights} must have one number for each of the {count} stores in data.")
    marks = [[mark(store, number) for number in range(len(store))] for store in stores]
    training, validation = divided(
        stores, count, marks, division, validation_share=validation_share, seed=seed, learned=learned
    )
    of_episodes = [tasks_of(store) for store in stores]
    used = [sorted([*kept, *held_out]) for kept, held_out in zip(training, validation, strict=True)]
    # A random share of few episodes may hold out all of a task, which still counts as a task of the policy.
    tasks = _tasks(of_episodes, training if division.names_validation else used)
    spec, known = common_spec(stores), {}
    strange = [task for task in _tasks(of_episodes, validation) if task not in tasks]
    if tell_task:
        if strange:
            raise UserError(
                f"The held-out episodes contain {', '.join(strange)}, which is not among the training tasks: "
                f"{', '.join(tasks)}. Hold out others, or set tell_task=false."
            )
        if len(tasks) > 1 or division:
            spec = dataclasses.replace(spec, task=SEVERAL.join(tasks))
    elif division.stores:
        spec = dataclasses.replace(spec, task=common_spec(stores[:count]).task)
    if goals is not None:
        known = read_goals(goals, tasks)
    elif tell_task and len(tasks) > 1:
        known = one_hot_goals(tasks)
    return Demonstrations(
        stores,
        training,
        validation,
        spec,
        statistics_over(list(zip(stores, training, strict=True))),
        known,
        of_episodes,
        weights,
        {of_store[number] for of_store, episodes in zip(marks, training, strict=True) for number in episodes},
        count,
    )


def _tasks(of_episodes: Sequence[Sequence[str]], chosen: Sequence[Sequence[int]]) -> list[str]:
    """Distinct tasks of the chosen episodes, in the order of stores and episodes."""
    return list(
        dict.fromkeys(of_store[number] for of_store, its in zip(of_episodes, chosen, strict=True) for number in its)
    )


def some_windows(stream: DemoBatches | MixedBatches, count: int, batch_size: int, seed: int) -> list[Observation]:
    """Observations of `count` training windows, in batches."""
    random = np.random.default_rng(seed)
    if isinstance(stream, MixedBatches):
        return [stream.draw(random, batch_size).observation for _ in range(count // batch_size)]
    chosen = random.integers(0, stream.windows, count).reshape(-1, batch_size)
    return [stream.gather(part).observation for part in chosen]
