"""Training data of a policy: demonstration stores with split and statistics, and their streams of batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pixio_robot.cli.policy_training.data_settings import DataSettings
from pixio_robot.cli.policy_training.data_split import DemoSource, split_sources
from pixio_robot.data.demos.episode_hash import hash_episode
from pixio_robot.data.demos.store import DEFAULT_RAM_BYTES, DemoStore
from pixio_robot.data.demos.tasks import tasks_of
from pixio_robot.data.features.cache import FeatureCache
from pixio_robot.data.goals import Goals, one_hot_goals, read_goals
from pixio_robot.data.loading import DemoBatches, DemoWindows
from pixio_robot.data.mixture import MixedBatches, common_spec
from pixio_robot.data.mixture_weights import normalize_weights
from pixio_robot.data.stats import Statistics, compute_mixture_statistics
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
        return {source.hashes[number] for source in self.sources for number in source.training}

    def streams(
        self, policy: Any, features: list[FeatureCache] | None, *, batch_size: int, seed: int, random_views: bool
    ) -> tuple[DemoBatches | MixedBatches, DemoBatches | MixedBatches | None]:
        """This process's share of the training batches and of the held-out batches."""

        some_goal = next(iter(self.goals.values()), [])

        def windows(index: int, episodes: Sequence[int], views: bool) -> DemoWindows:
            source = self.sources[index]
            return DemoWindows.of_policy(
                policy,
                source.store,
                episodes=episodes,
                features=None if features is None else features[index],
                # Episodes that are neither trained on nor held out may have an unknown task.
                goals=[self.goals.get(task, some_goal) for task in source.tasks] if self.goals else None,
                random_views=views,
            )

        def stream(episodes: list[Sequence[int]], views: bool, processes: Processes) -> DemoBatches | MixedBatches:
            """Batches of these episodes of every source: of one store in shuffled epochs, of several by weight."""
            share = {"rank": processes.rank, "world_size": processes.world_size}
            used = [index for index, of_source in enumerate(episodes) if of_source]
            one_store = 1 in (len(self.sources), sum(source.trainable for source in self.sources))
            if len(used) == 1 and not self.goals and one_store:
                of_store = windows(used[0], episodes[used[0]], views)
                return DemoBatches(of_store, batch_size=batch_size, seed=seed, **share)
            weights = None
            if self.weights is not None and used[-1] < len(self.weights):  # stores that are all held out have no weight
                weights = [self.weights[index] for index in used]
            parts = [windows(index, episodes[index], views) for index in used]
            return MixedBatches(parts, batch_size=batch_size, seed=seed, weights=weights, **share)

        validation = None
        held_out = [source.held_out for source in self.sources]
        if any(held_out):
            validation = stream(held_out, False, Processes())
            sharing = current_processes().processes_for_rows(min(batch_size, validation.windows))
            if sharing.world_size > 1:
                validation = stream(held_out, False, sharing)
        return stream([source.training for source in self.sources], random_views, current_processes()), validation


def open_demonstrations(
    settings: DataSettings,
    validation_share: float,
    seed: int,
    learned: Collection[str] = (),
    initial_goals: Goals | None = None,
    cameras: Collection[str] | None = None,
) -> Demonstrations:
    """`learned`: content hashes of episodes (`pixio_robot.data.demos.episode_hash`) that must not be held out, because
    the initial policy was trained on them. `initial_goals`: what that policy is told of each task, which stays.
    `cameras`: those that are used, in which stores must agree; None: all.

    Raises UserError for empty or incompatible stores, for goals that do not match the tasks, if episodes are to be
    held out but all are in `learned`, and for settings that leave none to train on.
    """
    paths, weights, tell_task = settings.stores, settings.data_weights, settings.tell_task
    if weights is not None:
        paths, weights = _leave_out_weightless(paths, weights)
    stores = _open_stores([*paths, *settings.validation_data])
    sources = [
        DemoSource(
            store=store,
            hashes=[hash_episode(store, number) for number in range(len(store))],
            tasks=tasks_of(store),
            trainable=index < len(paths),
        )
        for index, store in enumerate(stores)
    ]
    sources = split_sources(sources, settings, validation_share, seed, learned)
    spec = common_spec(stores, cameras)
    tasks = _policy_tasks(sources, settings)
    if tell_task and (len(tasks) > 1 or settings.selects_episodes):
        spec = dataclasses.replace(spec, task=SEVERAL.join(tasks))
    elif not tell_task and settings.validation_data:
        spec = dataclasses.replace(spec, task=common_spec(stores[: len(paths)], cameras).task)
    goal_vectors: Goals = {}
    if settings.goals is not None:
        goal_vectors = read_goals(settings.goals, tasks)
    elif tell_task and initial_goals:
        # One-hot goals of these demonstrations could give a task the vector that was another one's.
        goal_vectors = dict(initial_goals)
        if unknown := [task for task in tasks if task not in goal_vectors]:
            raise UserError(
                f"initial_policy was trained on the tasks {', '.join(map(repr, goal_vectors))}, and not on "
                f"{', '.join(map(repr, unknown))}: give it a vector for each task with goals=, or leave out "
                "initial_policy."
            )
    elif tell_task and len(tasks) > 1:
        goal_vectors = one_hot_goals(tasks)
    return Demonstrations(
        sources=sources,
        spec=spec,
        statistics=compute_mixture_statistics([(source.store, source.training) for source in sources]),
        goals=goal_vectors,
        weights=weights,
    )


def _leave_out_weightless(paths: Sequence[str], weights: Sequence[float]) -> tuple[list[str], list[float]]:
    """The stores that are drawn from, and their weights. The others would only take part in what is computed over all
    episodes, such as statistics and tasks. Raises UserError for invalid weights."""
    normalize_weights(weights, [1] * len(paths), "stores in data")
    drawn = [(path, weight) for path, weight in zip(paths, weights, strict=True) if weight]
    return [path for path, _ in drawn], [weight for _, weight in drawn]


def _open_stores(paths: Sequence[str]) -> list[DemoStore]:
    # The memory limit of a single store is shared among all.
    stores = [DemoStore.open(path, ram_bytes=DEFAULT_RAM_BYTES // len(paths)) for path in paths]
    for store in stores:
        if len(store) == 0:
            raise UserError(f"{store.path} contains no episodes; record some with `pixio-robot collect`.")
    return stores


def _policy_tasks(sources: Sequence[DemoSource], settings: DataSettings) -> list[str]:
    """The tasks that the policy learns. Raises UserError if it is told the task and held-out episodes have others."""
    # A random share of few episodes may hold out all of a task, which still counts as a task of the policy.
    only_training = settings.selects_validation
    tasks = _distinct_tasks(
        sources, lambda source: source.training if only_training else sorted([*source.training, *source.held_out])
    )
    held_out = _distinct_tasks(sources, lambda source: source.held_out)
    if settings.tell_task and (untrained := [task for task in held_out if task not in tasks]):
        raise UserError(
            f"The held-out episodes contain {', '.join(untrained)}, which is not among the training tasks: "
            f"{', '.join(tasks)}. Hold out others, or set tell_task=false."
        )
    return tasks


def _distinct_tasks(sources: Sequence[DemoSource], episodes: Callable[[DemoSource], Sequence[int]]) -> list[str]:
    """Distinct tasks of the chosen episodes, in the order of sources and episodes."""
    return list(dict.fromkeys(source.tasks[number] for source in sources for number in episodes(source)))


def sample_windows(stream: DemoBatches | MixedBatches, count: int, batch_size: int, seed: int) -> list[Observation]:
    """Observations of `count` training windows, in batches."""
    random = np.random.default_rng(seed)
    return [stream.draw(random, batch_size).observation for _ in range(count // batch_size)]
