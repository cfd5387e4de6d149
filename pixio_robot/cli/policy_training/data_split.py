"""Split episodes into training and held-out ones: by a random share, or by explicit settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from pixio_robot.cli.policy_training.data_settings import DataSettings
from pixio_robot.data.demos.editing.rewrite import find_matching_episodes
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.windows import split_episodes
from pixio_robot.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoSource:
    """A store, and which of its episodes are for what."""

    store: DemoStore
    hashes: Sequence[str]
    """Content hash of every episode (`pixio_robot.data.demos.episode_hash`)."""
    tasks: Sequence[str]
    """Task of every episode."""
    trainable: bool
    """False for the stores of `validation_data`, which are held out completely."""
    training: Sequence[int] = ()
    """Episodes to train on."""
    held_out: Sequence[int] = ()
    """Episodes to hold out."""
    duplicates: int = 0
    """Number of episodes that are not trained on because one with the same content is held out."""


def split_sources(
    sources: Sequence[DemoSource],
    settings: DataSettings,
    validation_share: float,
    seed: int,
    learned: Collection[str],
) -> list[DemoSource]:
    """The sources with their training and held-out episodes. `learned`: content hashes that must not be held out.

    Duplicates of episodes that are held out are not trained on either. Raises UserError if nothing is left to
    train on or to hold out, and if an episode selected for holding out is in `learned`.
    """
    candidates = _select_episodes(sources, settings.train_where, "train_where")
    if settings.selects_validation:
        splits = _split_by_selection(sources, candidates, settings, learned)
    else:
        splits = _split_by_share(sources, candidates, validation_share, seed, learned)
    return [
        dataclasses.replace(
            source, training=kept, held_out=left_out, duplicates=len(set(numbers).difference(kept, left_out))
        )
        for source, numbers, (kept, left_out) in zip(sources, candidates, splits, strict=True)
    ]


def _select_episodes(sources: Sequence[DemoSource], where: str, setting: str) -> list[list[int]]:
    """The episodes of the trainable sources that satisfy a condition; none of the others."""
    stores = [source.store for source in sources if source.trainable]
    try:
        selected = iter(
            find_matching_episodes(stores, where) if where else [list(range(len(store))) for store in stores]
        )
    except UserError as error:
        raise UserError(f"{setting}: {error}") from error
    return [next(selected) if source.trainable else [] for source in sources]


def _split_by_selection(
    sources: Sequence[DemoSource],
    candidates: Sequence[Sequence[int]],
    settings: DataSettings,
    learned: Collection[str],
) -> list[tuple[list[int], list[int]]]:
    held_out = [[] if source.trainable else list(range(len(source.store))) for source in sources]
    if settings.validation_where:
        selected = _select_episodes(sources, settings.validation_where, "validation_where")
        held_out = [whole_store + episodes for whole_store, episodes in zip(held_out, selected, strict=True)]
    hashes = [source.hashes[number] for source, numbers in zip(sources, held_out, strict=True) for number in numbers]
    if known := sum(content in learned for content in hashes):
        raise UserError(
            f"initial_policy was trained on {known} of the {len(hashes)} episodes selected by validation_data= "
            "and validation_where=, so a loss on them would be meaningless: select others."
        )
    held_out_hashes = set(hashes)
    training = [
        [number for number in numbers if source.hashes[number] not in held_out_hashes]
        for source, numbers in zip(sources, candidates, strict=True)
    ]
    if not any(training):
        duplicates = sum(len(set(numbers).difference(out)) for numbers, out in zip(candidates, held_out, strict=True))
        raise UserError(
            "validation_data= and validation_where= hold out every episode: none is left to train on."
            + (f" {duplicates} are duplicates of held-out episodes." if duplicates else "")
        )
    return list(zip(training, held_out, strict=True))


def _split_by_share(
    sources: Sequence[DemoSource],
    candidates: Sequence[Sequence[int]],
    validation_share: float,
    seed: int,
    learned: Collection[str],
) -> list[tuple[list[int], list[int]]]:
    splits = []
    any_learned = False
    training_hashes, held_out_hashes = set(learned), set()
    for source, numbers in zip(sources, candidates, strict=True):
        hashes = [source.hashes[number] for number in numbers]
        any_learned = any_learned or any(content in learned for content in hashes)
        known = {index for index, content in enumerate(hashes) if content in training_hashes}
        training, held_out = split_episodes(len(numbers), validation_share, seed, known)
        held_out_hashes.update(hashes[index] for index in held_out)
        training = [index for index in training if hashes[index] not in held_out_hashes]
        training_hashes.update(hashes[index] for index in training)
        splits.append(([numbers[index] for index in training], [numbers[index] for index in held_out]))
    if validation_share > 0 and any_learned and not any(held_out for _, held_out in splits):
        paths = ", ".join(str(source.store.path) for source in sources)
        raise UserError(
            f"initial_policy was trained on every episode of {paths}, so none can be held out: set validation_share=0."
        )
    return splits
