"""Reading everything a demonstration store holds and naming what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pixio_robot.data.demo_arrays import DamagedArray, open_frames, read_values
from pixio_robot.data.demos import VALUES, DemoStore


def verify(store: DemoStore) -> list[str]:
    """One sentence a problem; an empty list for a store that is whole. Reads every byte from the disk."""
    return [problem for episode in range(len(store)) for problem in _problems(store, episode)]


def _problems(store: DemoStore, episode: int) -> Iterator[str]:
    path = store.episode_path(episode)
    for name in VALUES:
        where = f"episode {episode}, {name}"
        try:
            values = read_values(path / name, store.values_shape(episode, name))
        except DamagedArray as error:
            yield f"{where}: {error}"
            continue
        if not np.isfinite(values).all():
            yield f"{where}: not finite at step {int(np.argwhere(~np.isfinite(values))[0][0])}"
    for camera in store.spec.cameras:
        where = f"episode {episode}, camera {camera}"
        shape = store.images_shape(episode, camera)
        try:
            frames = open_frames(path / "images" / camera, shape, store.image_codec)
        except DamagedArray as error:
            yield f"{where}: {error}"
            continue
        for number in range(shape[0]):
            try:
                frames.read(number, number + 1)
            except DamagedArray as error:
                yield f"{where}: {error}"
