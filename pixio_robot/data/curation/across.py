"""One selection over several sources of images, of which some are curated."""

from __future__ import annotations

from collections.abc import Sequence

from pixio_robot.data.chosen import AllImages, ChosenInTurn
from pixio_robot.data.curation.columns import data_digest
from pixio_robot.data.curation.selection import Selection
from pixio_robot.data.image_sources import ImageSource, parts_of
from pixio_robot.data.shards import FrameShards
from pixio_robot.errors import UserError


class SelectionAcross:
    """The selection of each part where there is one, all of it where there is none."""

    def __init__(self, parts: Sequence[tuple[int, Selection | None]]) -> None:
        """`parts`: number of images and selection of every source, in order."""
        self.parts = list(parts)

    def epoch(self, seed: int, epoch: int) -> ChosenInTurn:
        """What each source's selection accepts in this epoch."""
        # Sources of equal length must not be thinned alike: each draws with a seed of its own.
        choices = [
            AllImages(count) if selection is None else selection.epoch(seed + number, epoch)
            for number, (count, selection) in enumerate(self.parts)
        ]
        return ChosenInTurn(choices, [count for count, _ in self.parts])


def open_selections(paths: Sequence[str], source: ImageSource) -> SelectionAcross | None:
    """The selections at `paths`, each matched with the shards in `source` that it was made of; None without any.

    Raises UserError for a selection that belongs to none of them, and for two that belong to the same.
    """
    if not paths:
        return None
    sources = parts_of(source)
    chosen: list[Selection | None] = [None] * len(sources)
    for path in paths:
        selection = Selection.open(path)
        owners = [
            number
            for number, part in enumerate(sources)
            if isinstance(part, FrameShards)
            and selection.info["data"] == data_digest(part)
            and selection.info["split"] == part.split
        ]
        if not owners:
            raise UserError(
                f"The selection {path} was not made of any of the shards in data=; name the ones that it was made of, "
                "or run `pixio-robot curate` on these."
            )
        if any(chosen[number] is not None for number in owners):
            raise UserError(f"Two selections were made of the same shards, the second being {path}; name one.")
        for number in owners:
            chosen[number] = selection
    return SelectionAcross([(len(part), selection) for part, selection in zip(sources, chosen, strict=True)])
