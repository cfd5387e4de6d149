"""Making new stores from existing ones, one episode in memory at a time; `out` is written completely or not at all.

The sources are never changed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from pixio_robot.data.demos.atomic_commit import STAGING, check_new, commit_by_rename
from pixio_robot.data.demos.codecs import LOSSY, RAW
from pixio_robot.data.demos.editing.filter_expression import NAMES, EpisodeProperties, parse_filter
from pixio_robot.data.demos.episode_hash import hash_episode
from pixio_robot.data.demos.store import DemoStore, DiskFull
from pixio_robot.data.demos.validation import check_episode
from pixio_robot.data.windows import split_episodes
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.files import staging_directory
from pixio_robot.progress import track_progress
from pixio_robot.types import DemoSpec, Episode

TASK = "task"
"""The key of an episode's info that names its task in a store with several tasks."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NewStore:
    """What to write to a new store; `episodes` yields `count` episodes and can be iterated once."""

    spec: DemoSpec
    count: int
    episodes: Iterator[Episode]
    image_codec: str = RAW


@dataclasses.dataclass(frozen=True)
class Edit:
    """A change of every episode of a store; `spec` is the DemoSpec of the result."""

    spec: DemoSpec
    change: Callable[[Episode], Episode] = lambda episode: episode
    notes: tuple[str, ...] = ()
    """What was changed and what was not, one line each, to show to the user."""


def write_stores(out: Path, new_stores: Mapping[str, NewStore]) -> None:
    """Write one store at each `out / name` (the name "" means `out` itself); all of them appear at once.

    Raises UserError as `check_new` does, or if the disk is full; nothing is left behind in that case.
    """
    check_new(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with staging_directory(out.parent, STAGING) as temporary:
        for name, new in new_stores.items():
            store = DemoStore.create(temporary / "out" / name, new.spec, image_codec=new.image_codec)
            title = f"write {out / name}"
            for episode in track_progress(new.episodes, title, total=new.count):
                try:
                    check_episode(episode, new.spec)
                except UserError as error:
                    raise UserError(f"Episode {len(store)} cannot be written to {out / name}: {error}") from error
                try:
                    store.append(episode, flush=False)
                except DiskFull as error:
                    raise UserError(
                        f"No space left on the disk after {len(store)} of {new.count} episodes of {out / name}. "
                        "Nothing was kept; free some space and run the same command again."
                    ) from error
        if not commit_by_rename(temporary / "out", out):
            raise UserError(f"{out} was created by another process in the meantime; choose another out=.")


def open_for_streaming(path: Path) -> DemoStore:
    """Open a store for reading every frame once: no frames are kept in RAM. Raises UserError if it is empty."""
    store = DemoStore.open(path, ram_bytes=0)
    if not len(store):
        raise UserError(f"{path} has no episodes yet.")
    return store


def episode_task(store: DemoStore, episode: int) -> str:
    return str(store.info(episode).get(TASK, store.spec.task))


def select_episodes(store: DemoStore, episodes: Sequence[int] | None = None, edit: Edit | None = None) -> NewStore:
    """Some episodes of one store (None: all), edited."""
    episodes = range(len(store)) if episodes is None else episodes
    edit = edit or Edit(store.spec)
    spec = edit.spec
    # `train` distinguishes the tasks of several stores by their DemoSpecs.
    tasks = {episode_task(store, number) for number in episodes}
    if len(tasks) == 1 and spec.task == store.spec.task:
        spec = dataclasses.replace(spec, task=tasks.pop())
    return NewStore(
        spec=spec,
        count=len(episodes),
        episodes=(edit.change(store.episode(number)) for number in episodes),
        image_codec=lossless_codec(store.image_codec),
    )


def lossless_codec(codec: str) -> str:
    """The codec for images decoded from `codec`: RAW instead of a lossy one, to avoid a second loss."""
    return RAW if codec in LOSSY else codec


def filter_episodes(store: DemoStore, where: str) -> NewStore:
    """The episodes that match the condition `where` (`filter_expression`). Raises UserError if there are none."""
    [episodes] = find_matching_episodes([store], where)
    return select_episodes(store, episodes)


def find_matching_episodes(stores: Sequence[DemoStore], where: str) -> list[list[int]]:
    """For each store, the numbers of the episodes that match the condition `where` (`filter_expression`).

    Raises UserError if no episode matches, and for an `info.KEY` that no episode of any store has.
    """
    condition = parse_filter(where)
    episodes = [list(_episode_properties(store)) for store in stores]
    info_keys = {key for of_store in episodes for episode in of_store for key in episode.info}
    for key in sorted(condition.info_keys - info_keys):
        raise unknown_name("property of an episode", f"info.{key}", [*NAMES, *(f"info.{known}" for known in info_keys)])
    matching = [[episode.episode for episode in of_store if condition.holds(episode)] for of_store in episodes]
    if not any(matching):
        paths = ", ".join(str(store.path) for store in stores)
        raise UserError(f"where={where!r} matches none of the {sum(map(len, stores))} episodes of {paths}.")
    return matching


def _episode_properties(store: DemoStore) -> Iterator[EpisodeProperties]:
    outcomes = zip(store.lengths.tolist(), store.seeds, store.successes, strict=True)
    for number, (length, seed, success) in enumerate(outcomes):
        yield EpisodeProperties(
            episode=number,
            length=length,
            seed=seed,
            success=success,
            task=episode_task(store, number),
            reward=float(store.rewards(number).sum()),
            info=store.info(number),
        )


def split_store(store: DemoStore, validation_share: float, seed: int) -> dict[str, NewStore]:
    """Disjoint `train` and `validation` stores, split as `train` splits episodes with the same share and seed: episodes
    that equal a held-out one in state and actions are in neither."""
    train, validation = split_episodes(len(store), validation_share, seed)
    if not validation:
        raise UserError(
            f"validation_share={validation_share} of {len(store)} episodes gives none; choose a larger share below 1."
        )
    held_out = {hash_episode(store, episode) for episode in validation}
    train = [episode for episode in train if hash_episode(store, episode) not in held_out]
    if not train:
        raise UserError(f"Every episode of {store.path} equals one that is held out: none is left to train on.")
    return {"train": select_episodes(store, train), "validation": select_episodes(store, validation)}


def sample_episodes(store: DemoStore, count: int, seed: int) -> list[int]:
    """`count` distinct random episodes, in ascending order."""
    if not 1 <= count <= len(store):
        raise UserError(f"episodes={count} must be between 1 and the {len(store)} episodes of {store.path}.")
    return sorted(np.random.default_rng(seed).permutation(len(store))[:count].tolist())
