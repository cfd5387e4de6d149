"""Training data of a policy: demonstration stores with split and statistics, and their streams of batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pixio_robot.cli.policy_training.data_split import RANDOM_SPLIT, DemoSource, EpisodeSelection, split_sources
from pixio_robot.data.demos.episode_hash import hash_episode
from pixio_robot.data.demos.store import DEFAULT_RAM_BYTES, DemoStore
from pixio_robot.data.demos.tasks import tasks_of
from pixio_robot.data.features.cache import FeatureCache
from pixio_robot.data.goals import Goals, one_hot_goals, read_goals
from pixio_robot.data.loading import DemoBatches
from pixio_robot.data.mixture import MixedBatches, common_spec, compute_mixture_statistics
from pixio_robot.data.stats import Statistics
from pixio_robot.errors import UserError
from pixio_robot.training.distributed.processes import Processes, current_processes
from pixio_robot.types import SEVERAL, DemoSpec, Observation


@dataclass(kw_only=True)
class Demonstrations:
    """The sources of training and held-out episodes, and what a policy has to know about them."""

    sources: list[DemoSource]
    """Those to train on come first."""
    spec: DemoSpec
    statistics: Statistics
    """Statistics of the training episodes only."""
    goals: Goals
    """Task -> goal; empty for a policy without task conditioning: tell_task=false, or a single task without a goals
    file."""
    weights: list[float] | None
    """Sampling weights of the sources to train on."""

    @property
    def seeds(self) -> list[int]:
        return sorted({seed for source in self.sources for seed in source.store.seeds})

    @property
    def learned(self) -> set[str]:
        """Content hashes of the training episodes."""
        return {source.marks[number] for source in self.sources for number in source.training}

    def streams(
        self, policy: Any, features: list[FeatureCache] | None, *, batch_size: int, seed: int, random_views: bool
    ) -> tuple[DemoBatches | MixedBatches, DemoBatches | MixedBatches | None]:
        """This process's share of the training batches and of the held-out batches."""

        unknown = next(iter(self.goals.values()), [])

        def open_batches(index: int, episodes: Sequence[int], views: bool, processes: Processes) -> DemoBatches:
            source = self.sources[index]
            return DemoBatches.of_policy(
                policy,
                source.store,
                batch_size=batch_size,
                seed=seed,
                episodes=episodes,
                features=None if features is None else features[index],
                # Episodes that are neither trained on nor held out may have an unknown task.
                goals=[self.goals.get(task, unknown) for task in source.tasks] if self.goals else None,
                random_views=views,
                rank=processes.rank,
                world_size=processes.world_size,
            )

        def stream(chosen: list[Sequence[int]], views: bool, processes: Processes) -> DemoBatches | MixedBatches:
            used = [index for index, episodes in enumerate(chosen) if episodes]
            alone = 1 in (len(self.sources), sum(source.trainable for source in self.sources))
            if len(used) == 1 and not self.goals and alone:
                return open_batches(used[0], chosen[used[0]], views, processes)
            weighted = self.weights is not None and used[-1] < len(self.weights)
            return MixedBatches(
                [open_batches(index, chosen[index], views, Processes()) for index in used],
                batch_size=batch_size,
                seed=seed,
                weights=[self.weights[index] for index in used] if self.weights and weighted else None,
                rank=processes.rank,
                world_size=processes.world_size,
            )

        validation = None
        held_out = [source.held_out for source in self.sources]
        if any(held_out):
            validation = stream(held_out, False, Processes())
            sharing = current_processes().processes_for_rows(min(batch_size, validation.windows))
            if sharing.world_size > 1:
                validation = stream(held_out, False, sharing)
        return stream([source.training for source in self.sources], random_views, current_processes()), validation


def open_demonstrations(
    paths: Sequence[str],
    *,
    weights: list[float] | None,
    goals: str | None,
    tell_task: bool = True,
    validation_share: float,
    seed: int,
    learned: Collection[str] = (),
    selection: EpisodeSelection = RANDOM_SPLIT,
) -> Demonstrations:
    """`goals`: file with a goal vector for each task. `tell_task`: whether the policy is conditioned on the task.
    `learned`: content hashes of episodes (`pixio_robot.data.demos.episode_hash`) that must not be held out, because the
    initial policy was trained on them. `selection`: explicit choice of training and held-out episodes, instead of
    `validation_share`.

    Raises UserError for empty or incompatible stores, for goals that do not match the tasks, if episodes are to be
    held out but all are in `learned`, and for a selection that leaves none.
    """
    count, paths = len(paths), [*paths, *selection.stores]
    # The memory limit of a single store is shared among all.
    stores = [DemoStore.open(path, ram_bytes=DEFAULT_RAM_BYTES // len(paths)) for path in paths]
    for store in stores:
        if len(store) == 0:
            raise UserError(f"{store.path} contains no episodes; record some with `pixio-robot collect`.")
    if weights is not None and len(weights) != count:
        raise UserError(f"data_weights={weights} must have one number for each of the {count} stores in data.")
    sources = [
        DemoSource(
            store=store,
            marks=[hash_episode(store, number) for number in range(len(store))],
            tasks=tasks_of(store),
            trainable=index < count,
        )
        for index, store in enumerate(stores)
    ]
    sources = split_sources(sources, selection, validation_share=validation_share, seed=seed, learned=learned)
    held_out = _distinct_tasks(sources, lambda source: source.held_out)
    # A random share of few episodes may hold out all of a task, which still counts as a task of the policy.
    named = selection.selects_validation
    tasks = _distinct_tasks(
        sources, lambda source: source.training if named else sorted([*source.training, *source.held_out])
    )
    spec, goal_vectors = common_spec(stores), {}
    if tell_task:
        if untrained := [task for task in held_out if task not in tasks]:
            raise UserError(
                f"The held-out episodes contain {', '.join(untrained)}, which is not among the training tasks: "
                f"{', '.join(tasks)}. Hold out others, or set tell_task=false."
            )
        if len(tasks) > 1 or selection:
            spec = dataclasses.replace(spec, task=SEVERAL.join(tasks))
    elif selection.stores:
        spec = dataclasses.replace(spec, task=common_spec(stores[:count]).task)
    if goals is not None:
        goal_vectors = read_goals(goals, tasks)
    elif tell_task and len(tasks) > 1:
        goal_vectors = one_hot_goals(tasks)
    return Demonstrations(
        sources=sources,
        spec=spec,
        statistics=compute_mixture_statistics([(source.store, source.training) for source in sources]),
        goals=goal_vectors,
        weights=weights,
    )


def _distinct_tasks(sources: Sequence[DemoSource], episodes: Callable[[DemoSource], Sequence[int]]) -> list[str]:
    """Distinct tasks of the chosen episodes, in the order of sources and episodes."""
    return list(dict.fromkeys(source.tasks[number] for source in sources for number in episodes(source)))


def sample_windows(stream: DemoBatches | MixedBatches, count: int, batch_size: int, seed: int) -> list[Observation]:
    """Observations of `count` training windows, in batches."""
    random = np.random.default_rng(seed)
    if isinstance(stream, MixedBatches):
        return [stream.draw(random, batch_size).observation for _ in range(count // batch_size)]
    chosen = random.integers(0, stream.windows, count).reshape(-1, batch_size)
    return [stream.gather(part).observation for part in chosen]
