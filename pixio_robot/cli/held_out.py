"""Split episodes into training and held-out ones: by a random share, or by explicit selection."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from pixio_robot.data.demo_edit import holding
from pixio_robot.data.demos import DemoStore
from pixio_robot.data.windows import split_episodes
from pixio_robot.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Division:
    """train_where: which episodes of the training stores to train on; "" for all. validation_where: which episodes of
    the same stores to hold out. stores: additional stores, held out completely. Conditions as in `demo_where`."""

    train_where: str = ""
    validation_where: str = ""
    stores: Sequence[str] = ()

    @property
    def names_validation(self) -> bool:
        return bool(self.validation_where or self.stores)

    def __bool__(self) -> bool:
        return self.names_validation or bool(self.train_where)


BY_SHARE = Division()
"""Use all episodes, and hold out a random share of them."""


def divided(
    stores: Sequence[DemoStore],
    count: int,
    marks: Sequence[Sequence[str]],
    division: Division,
    *,
    validation_share: float,
    seed: int,
    learned: Collection[str],
) -> tuple[list[list[int]], list[list[int]]]:
    """(Episodes of each store to train on, episodes of each to hold out). The first `count` stores are trained on.

    marks: content hash of every episode of every store (`pixio_robot.data.demo_marks`); learned: marks that must not be
    held out. Duplicates of held-out episodes are not trained on either. Raises UserError if nothing is left to train on
    or to hold out, and if an episode selected for holding out is in `learned`.
    """
    candidates = [*_where(stores[:count], division.train_where, "train_where"), *([] for _ in stores[count:])]
    if not division.names_validation:
        return _shared(stores, candidates, marks, validation_share, seed, learned)
    held_out: list[list[int]] = [[] for _ in stores[:count]]
    if division.validation_where:
        held_out = _where(stores[:count], division.validation_where, "validation_where")
    held_out += [list(range(len(store))) for store in stores[count:]]
    held_out_marks = [its[number] for its, numbers in zip(marks, held_out, strict=True) for number in numbers]
    if known := sum(one in learned for one in held_out_marks):
        raise UserError(
            f"initial_policy was trained on {known} of the {len(held_out_marks)} episodes selected by validation_data= "
            "and validation_where=, so a loss on them would be meaningless: select others."
        )
    taken = set(held_out_marks)
    training = [[n for n in numbers if its[n] not in taken] for its, numbers in zip(marks, candidates, strict=True)]
    if not any(training):
        twins = sum(len(set(numbers).difference(its)) for numbers, its in zip(candidates, held_out, strict=True))
        raise UserError(
            "validation_data= and validation_where= hold out every episode: none is left to train on."
            + (f" {twins} are duplicates of held-out episodes." if twins else "")
        )
    return training, held_out


def _where(stores: Sequence[DemoStore], where: str, setting: str) -> list[list[int]]:
    if not where:
        return [list(range(len(store))) for store in stores]
    try:
        return holding(stores, where)
    except UserError as error:
        raise UserError(f"{setting}: {error}") from error


def _shared(
    stores: Sequence[DemoStore],
    candidates: Sequence[Sequence[int]],
    marks: Sequence[Sequence[str]],
    validation_share: float,
    seed: int,
    learned: Collection[str],
) -> tuple[list[list[int]], list[list[int]]]:
    training: list[list[int]] = []
    held_out: list[list[int]] = []
    before = False
    for its, numbers in zip(marks, candidates, strict=True):
        known = {place for place, number in enumerate(numbers) if its[number] in learned}
        before = before or bool(known)
        kept, left_out = split_episodes(len(numbers), validation_share, seed, known)
        training.append([numbers[place] for place in kept])
        held_out.append([numbers[place] for place in left_out])
    if validation_share > 0 and before and not any(held_out):
        paths = ", ".join(str(store.path) for store in stores)
        raise UserError(
            f"initial_policy was trained on every episode of {paths}, so none can be held out: set validation_share=0."
        )
    return training, held_out
