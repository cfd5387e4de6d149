"""Reading everything a demonstration store holds and naming what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pixio_robot.data.demo_arrays import DamagedArray, FrameFile, read_values
from pixio_robot.data.demos import EPISODES, DemoStore


def verify(store: DemoStore) -> list[str]:
    """One sentence a problem; an empty list for a store that is whole. Reads every byte."""
    return [problem for episode in range(len(store)) for problem in _problems(store, episode)]


def _problems(store: DemoStore, episode: int) -> Iterator[str]:
    path = store.path / EPISODES / f"{episode:06d}"
    length = int(store.lengths[episode])
    where = f"episode {episode}"
    wanted = {"state": (length, store.spec.state_dim), "actions": (length, store.spec.action_dim), "rewards": (length,)}
    for name, shape in wanted.items():
        try:
            values = read_values(path / name)
        except DamagedArray as error:
            yield f"{where}, {name}: {error}"
            continue
        if values.shape != shape or values.dtype != np.float32:
            yield f"{where}, {name}: {values.dtype} {values.shape} instead of float32 {shape}"
        elif not np.isfinite(values).all():
            yield f"{where}, {name}: not finite at step {int(np.argwhere(~np.isfinite(values))[0][0])}"
    for camera, size in store.spec.cameras.items():
        try:
            frames = FrameFile(path / "images" / camera)
            if frames.shape != (length, size.height, size.width, 3):
                yield f"{where}, camera {camera}: {frames.shape} instead of {(length, size.height, size.width, 3)}"
                continue
        except DamagedArray as error:
            yield f"{where}, camera {camera}: {error}"
            continue
        for number in range(length):
            try:
                frames.read(number, number + 1, verify=True)
            except DamagedArray as error:
                yield f"{where}, camera {camera}: {error}"
