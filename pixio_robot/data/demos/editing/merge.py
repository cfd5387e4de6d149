"""Merging the episodes of several stores into one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from pixio_robot.data.demos.editing.rewrite import TASK, NewStore, episode_task, lossless_codec
from pixio_robot.data.demos.episode_hash import hash_episode
from pixio_robot.data.demos.spec_differences import describe_differences
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.errors import UserError
from pixio_robot.types import Episode, join_several

CHECKSUM_BYTES = 32
"""Full length, because episodes are dropped on equal checksums."""


def find_duplicates(stores: Sequence[DemoStore]) -> set[tuple[int, int]]:
    """(store number, episode) of every episode whose states and actions are bit-identical to an earlier one's."""
    seen: set[str] = set()
    duplicates = set()
    for index, store in enumerate(stores):
        for number in range(len(store)):
            content_hash = hash_episode(store, number, CHECKSUM_BYTES)
            if content_hash in seen:
                duplicates.add((index, number))
            seen.add(content_hash)
    return duplicates


def merge_stores(stores: Sequence[DemoStore], without: Iterable[tuple[int, int]] = ()) -> NewStore:
    """All episodes of all stores except `without` (in the form that `find_duplicates` returns). If tasks differ,
    every episode's info names its own.

    Raises UserError if anything else differs, naming the store and the field, and for a store that is listed twice.
    """
    first = stores[0].spec
    for number, store in enumerate(stores):
        if store.path.resolve() in [other.path.resolve() for other in stores[:number]]:
            raise UserError(f"{store.path} is listed twice; its episodes would be duplicated.")
        same_task_spec = dataclasses.replace(store.spec, task=first.task)
        if differences := describe_differences(first, same_task_spec, "A", "B"):
            raise UserError(f"{stores[0].path} (A) and {store.path} (B) cannot be merged. {differences}")
    left_out = set(without)
    numbered = [
        (store, number)
        for index, store in enumerate(stores)
        for number in range(len(store))
        if (index, number) not in left_out
    ]
    tasks = sorted({episode_task(store, number) for store, number in numbered})

    def named(store: DemoStore, number: int) -> Episode:
        episode = store.episode(number)
        if len(tasks) == 1:
            return episode
        return dataclasses.replace(episode, info={**episode.info, TASK: episode_task(store, number)})

    specs = [store.spec for store in stores]
    spec = dataclasses.replace(
        first,
        task=join_several(tasks),
        source=join_several(spec.source for spec in specs),
        licence=join_several(spec.licence for spec in specs),
        simulator_version=join_several(spec.simulator_version for spec in specs),
    )
    return NewStore(
        spec=spec,
        count=len(numbered),
        episodes=(named(store, number) for store, number in numbered),
        image_codec=lossless_codec(stores[0].image_codec),
    )
