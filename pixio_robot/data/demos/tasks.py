"""The tasks of a store: which episode belongs to which, and splitting a store by task."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from pixio_robot.data.demos.editing.rewrite import NewStore, episode_task, select_episodes
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.errors import UserError

MAX_NAME_LENGTH = 80


@dataclasses.dataclass(frozen=True)
class TaskEpisodes:
    """The part of a store that belongs to one task."""

    episodes: list[int]
    steps: int
    successes: int


def tasks_of(store: DemoStore) -> list[str]:
    """The task of every episode. If all have the same task, its name is the one in the store's DemoSpec."""
    tasks = [episode_task(store, number) for number in range(len(store))]
    return tasks if len(set(tasks)) > 1 else [store.spec.task] * len(tasks)


def group_episodes_by_task(store: DemoStore) -> dict[str, TaskEpisodes]:
    """The share of every task, ordered by first episode."""
    episodes: dict[str, list[int]] = {}
    for number, task in enumerate(tasks_of(store)):
        episodes.setdefault(task, []).append(number)
    lengths, successes = store.lengths, store.successes
    return {
        task: TaskEpisodes(numbers, int(lengths[numbers].sum()), sum(successes[number] for number in numbers))
        for task, numbers in episodes.items()
    }


def split_by_task(store: DemoStore) -> dict[str, NewStore]:
    """{folder name: a new store of one task}. Raises UserError if the store has only one task."""
    shares = group_episodes_by_task(store)
    if len(shares) == 1:
        raise UserError(
            f"All episodes of {store.path} belong to one task, {next(iter(shares))!r}: there is nothing to split."
        )
    names = folder_names_for_tasks(list(shares))
    return {names[task]: select_episodes(store, share.episodes) for task, share in shares.items()}


def folder_names_for_tasks(tasks: list[str]) -> Mapping[str, str]:
    """`pick-the-red-cube` for "Pick the red cube."; tasks with the same result are numbered."""
    names: dict[str, str] = {}
    for task in tasks:
        name = re.sub(r"\W+", "-", task.lower())[:MAX_NAME_LENGTH].strip("-") or "task"
        count, free = 1, name
        while free in names.values():
            count += 1
            free = f"{name}-{count}"
        names[task] = free
    return names
