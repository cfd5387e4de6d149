"""The tasks of a store: which episode is of which, and a store for each."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from pixio_robot.data.demo_edit import Recipe, chosen, task_of
from pixio_robot.data.demos import DemoStore
from pixio_robot.errors import UserError

LONGEST_NAME = 80


@dataclasses.dataclass(frozen=True)
class TaskShare:
    """What of a store is of one task."""

    episodes: list[int]
    steps: int
    successes: int


def tasks_of(store: DemoStore) -> list[str]:
    """The task of every episode. Where all are of one, it is called as the store's DemoSpec calls it."""
    found = [task_of(store, number) for number in range(len(store))]
    return found if len(set(found)) > 1 else [store.spec.task] * len(found)


def shares_of_tasks(store: DemoStore) -> dict[str, TaskShare]:
    """Of every task, in the order of their first episodes."""
    episodes: dict[str, list[int]] = {}
    for number, task in enumerate(tasks_of(store)):
        episodes.setdefault(task, []).append(number)
    lengths, successes = store.lengths, store.successes
    return {
        task: TaskShare(numbers, int(lengths[numbers].sum()), sum(successes[number] for number in numbers))
        for task, numbers in episodes.items()
    }


def split_by_task(store: DemoStore) -> dict[str, Recipe]:
    """A store of each task, by a name for its folder. Raises UserError for a store of one task."""
    shares = shares_of_tasks(store)
    if len(shares) == 1:
        raise UserError(
            f"Every episode of {store.path} is of one task, {next(iter(shares))!r}: there is none to split."
        )
    names = folder_names(list(shares))
    return {names[task]: chosen(store, share.episodes) for task, share in shares.items()}


def folder_names(tasks: list[str]) -> Mapping[str, str]:
    """`pick-the-red-cube` for "Pick the red cube."; tasks that come to the same are numbered."""
    found: dict[str, str] = {}
    for task in tasks:
        name = re.sub(r"\W+", "-", task.lower())[:LONGEST_NAME].strip("-") or "task"
        count, free = 1, name
        while free in found.values():
            count += 1
            free = f"{name}-{count}"
        found[task] = free
    return found
