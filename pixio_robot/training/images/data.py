"""Training and held-out images of a training run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from pixio_robot.data.curation.multi_source_selection import MultiSourceSelection, open_selections
from pixio_robot.data.images.batches import PixelBatches
from pixio_robot.data.images.mixture import MixedOrder
from pixio_robot.data.images.shards import MANIFEST, read_manifest
from pixio_robot.data.images.sources import ImageSource, component_sources, open_image_source
from pixio_robot.training.distributed.processes import current_processes
from pixio_robot.training.images.hooks import SEED


@dataclasses.dataclass
class ImageData:
    """Two streams of random crops; `held_out` and `validation` are None if nothing is held out."""

    train: ImageSource
    batches: PixelBatches
    """This process's share of every batch."""
    held_out: ImageSource | None
    validation: PixelBatches | None
    """This process's share too, or the whole batch if the held-out images cannot be divided evenly."""

    def close(self) -> None:
        self.batches.close()
        if self.validation is not None:
            self.validation.close()


def open_image_data(
    data: Sequence[str],
    selection: Sequence[str],
    weights: Sequence[float] | None = None,
    *,
    batch_size: int,
    image_size: int,
    seed: int,
    workers: int,
) -> ImageData:
    """Open shards and demonstrations; `batch_size` counts the images of all processes.

    `weights`: relative sampling weights of `data`; None: by number of images, as always for held-out images. Raises
    UserError for invalid data, a selection that belongs to none of it, weights that do not fit, and a batch that cannot
    be divided among the processes.
    """
    processes = current_processes()
    share = processes.local_batch_size(batch_size)
    train = open_image_source(data)
    selected = open_selections(selection, train)
    batches = PixelBatches(
        train,
        share,
        image_size,
        seed,
        workers,
        rank=processes.rank,
        world_size=processes.world_size,
        selection=selected,
        order=None if weights is None else _mixture_order(train, selected, weights, seed),
    )
    held_out = _open_validation_split(data)
    validation = None
    if held_out is not None:
        shown = min(batch_size, len(held_out))
        sharing = processes.processes_for_rows(shown)
        validation = PixelBatches(
            held_out,
            sharing.local_batch_size(shown),
            image_size,
            SEED,
            workers,
            rank=sharing.rank,
            world_size=sharing.world_size,
        )
    return ImageData(train, batches, held_out, validation)


def _mixture_order(
    source: ImageSource, selected: MultiSourceSelection | None, weights: Sequence[float], seed: int
) -> MixedOrder:
    counts = [len(part) for part in component_sources(source)]
    selections = [None] * len(counts) if selected is None else [selection for _, selection in selected.parts]
    return MixedOrder(counts, selections, weights, seed)


def _open_validation_split(paths: Sequence[str]) -> ImageSource | None:
    """Held-out frames of the shards among `paths`; demonstrations have no validation split."""
    with_split = [
        path
        for path in paths
        if (Path(path) / MANIFEST).is_file() and read_manifest(Path(path))["splits"]["validation"]["frames"] > 0
    ]
    return open_image_source(with_split, split="validation") if with_split else None
