"""One selection over several image sources, some of which may have been curated."""

from __future__ import annotations

from collections.abc import Sequence

from pixio_robot.data.curation.score_columns import data_digest
from pixio_robot.data.curation.selection import Selection
from pixio_robot.data.images.shards import FrameShards
from pixio_robot.data.images.sources import ImageSource, component_sources
from pixio_robot.data.images.subsets import AllImages, ConcatenatedSubset
from pixio_robot.errors import UserError


class MultiSourceSelection:
    """Combines the selections of several sources; a source without a selection is used completely."""

    def __init__(self, parts: Sequence[tuple[int, Selection | None]]) -> None:
        """`parts`: (number of images, selection or None) of every source, in order."""
        self.parts = list(parts)

    def epoch(self, seed: int, epoch: int) -> ConcatenatedSubset:
        """The images accepted in this epoch, numbered across all sources."""
        # Each source has its own seed, so that the draws of sources of equal length are independent.
        choices = [
            AllImages(count) if selection is None else selection.epoch(seed + number, epoch)
            for number, (count, selection) in enumerate(self.parts)
        ]
        return ConcatenatedSubset(choices, [count for count, _ in self.parts])


def open_selections(paths: Sequence[str], source: ImageSource) -> MultiSourceSelection | None:
    """Open the selections at `paths` and match each with its shards in `source`; None if there are no paths.

    Raises UserError for a selection that belongs to none of the shards, and for two that belong to the same shards.
    """
    if not paths:
        return None
    sources = component_sources(source)
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
                f"The selection {path} was not made from any of the shards in data=; name the shards it was made from, "
                "or run `pixio-robot curate` on these."
            )
        if any(chosen[number] is not None for number in owners):
            raise UserError(f"Two selections were made from the same shards, the second being {path}; name only one.")
        for number in owners:
            chosen[number] = selection
    return MultiSourceSelection([(len(part), selection) for part, selection in zip(sources, chosen, strict=True)])
