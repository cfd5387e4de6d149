"""Small demonstrations for the tests of the store and of loading."""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.demos.verify import verify_store
from pixio_robot.types import Batch, CameraSpec, DemoSpec, Episode

SPEC = DemoSpec(
    task="Test",
    robot="none",
    simulator="none",
    simulator_version="0",
    controller="none",
    control_hz=10.0,
    cameras={"front": CameraSpec(height=12, width=10), "hand": CameraSpec(height=8, width=8)},
    state_names=("x [m]", "y [m]", "z [m]"),
    action_names=("u", "v"),
)


def make_episode(seed: int, length: int | None = None) -> Episode:
    """Random content; the front camera's frame number 1 is all black."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 9)) if length is None else length
    images = {
        name: rng.integers(0, 256, (n, camera.height, camera.width, 3), np.uint8)
        for name, camera in SPEC.cameras.items()
    }
    images["front"][1:2] = 0
    return Episode(
        images=images,
        state=rng.normal(size=(n, 3)).astype(np.float32),
        actions=rng.normal(size=(n, 2)).astype(np.float32),
        rewards=rng.normal(size=n).astype(np.float32),
        success=bool(seed % 2),
        seed=seed,
        info={"note": f"episode {seed}"},
    )


def make_store(path: Path, episodes: int = 4) -> DemoStore:
    store = DemoStore.create(path, SPEC)
    for seed in range(episodes):
        store.append(make_episode(seed))
    return store


def import_store(importer: Any, source: Path, out: Path, **settings: Any) -> DemoStore:
    """The valid store that the module `importer` makes of `source`."""
    importer.import_demos(source, out, importer.ImportConfig(**settings))
    store = DemoStore.open(out)
    assert verify_store(store) == []
    return store


def same(one: Episode, other: Episode) -> bool:
    return (
        all(np.array_equal(one.images[name], other.images[name]) for name in SPEC.cameras)
        and np.array_equal(one.state, other.state)
        and np.array_equal(one.actions, other.actions)
        and np.array_equal(one.rewards, other.rewards)
        and (one.success, one.seed, dict(one.info)) == (other.success, other.seed, dict(other.info))
    )


def take_and_send(batches: Iterator[Batch], connection: Connection) -> None:
    """What another process does with a loader that it was given."""
    connection.send(next(batches).actions.numpy())


DELTAS = (
    *(f"eef_delta_pos.{axis} [0.05 m]" for axis in "xyz"),
    *(f"eef_delta_axis_angle.{axis} [0.5 rad]" for axis in "xyz"),
    "gripper [-1 opens, 1 closes]",
)


def spec_of_deltas(task: str, state_names: tuple[str, ...]) -> DemoSpec:
    """robosuite's usual controller: changes of the gripper's pose, without images."""
    return DemoSpec(
        task=task,
        robot="Panda",
        simulator="robosuite",
        simulator_version="0",
        controller="OSC_POSE delta",
        control_hz=20.0,
        cameras={},
        state_names=state_names,
        action_names=DELTAS,
    )
