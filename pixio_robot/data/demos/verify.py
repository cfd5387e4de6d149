"""Verifying a demonstration store: read everything in it and report all problems."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pixio_robot.data.demos.arrays import CorruptArray, open_frames, read_values
from pixio_robot.data.demos.metadata_checksums import METADATA_FILE, metadata_checksums
from pixio_robot.data.demos.store import EPISODES, DemoStore
from pixio_robot.data.demos.validation import VALUES
from pixio_robot.errors import UserError
from pixio_robot.progress import track_progress

TIMESTAMPS = "timestamps_s"
"""The key of an episode's info under which a recorder may keep the time of every step, in seconds."""
MAX_JITTER = 0.5
"""How early or late a step may come, as a fraction of the control period."""


def verify_store(store: DemoStore, *, action_range: tuple[float, float] | None = None) -> list[str]:
    """Return one sentence per problem; empty if the store is intact. Reads every byte from disk.

    `action_range`: the range that the controller accepts, if all actions must lie within it.
    """
    problems = []
    for group in (store.path, store.path / EPISODES):
        if not _is_group(group):
            problems.append(
                f"{group / METADATA_FILE}: does not describe a Zarr v3 group, so other tools cannot read the store"
            )
    for episode in track_progress(range(len(store)), f"verify {store.path}"):
        problems += _check_metadata_files(store, episode)
        problems += _check_values(store, episode, action_range)
        problems += _check_timestamps(store, episode)
        problems += _check_overridden_steps(store, episode)
        problems += _check_images(store, episode)
    return problems


def _is_group(path: Path) -> bool:
    try:
        metadata = json.loads((path / METADATA_FILE).read_text())
        return (metadata["zarr_format"], metadata["node_type"]) == (3, "group")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _check_metadata_files(store: DemoStore, episode: int) -> Iterator[str]:
    """Check the `zarr.json` files: our readers ignore most of their contents, but other tools do not."""
    path = store.episode_path(episode)
    if not _is_group(path):
        yield f"episode {episode}: {METADATA_FILE} does not describe a Zarr v3 group, so other tools cannot read it"
    written = store.nodes(episode)
    current = metadata_checksums(path) if written else {}
    for name in sorted(name for name, checksum in written.items() if current.get(name) != checksum):
        yield f"episode {episode}, {name}: its {METADATA_FILE} has changed since it was written"


def _check_values(store: DemoStore, episode: int, action_range: tuple[float, float] | None) -> Iterator[str]:
    for name in VALUES:
        where = f"episode {episode}, {name}"
        try:
            values = read_values(store.episode_path(episode) / name, store.values_shape(episode, name))
        except CorruptArray as error:
            yield f"{where}: {error}"
            continue
        if not np.isfinite(values).all():
            yield f"{where}: not finite at step {int(np.argwhere(~np.isfinite(values))[0][0])}"
        elif name == "actions" and action_range is not None:
            outside = np.argwhere((values < action_range[0]) | (values > action_range[1]))
            if len(outside):
                step, dimension = outside[0].tolist()
                yield (
                    f"{where}: {len(outside)} values outside {action_range[0]:g}..{action_range[1]:g}, the first at "
                    f"step {step}: {store.spec.action_names[dimension]} is {values[step, dimension]:g}"
                )


def _check_timestamps(store: DemoStore, episode: int) -> Iterator[str]:
    times = store.info(episode).get(TIMESTAMPS)
    if times is None:
        return
    where, length = f"episode {episode}, {TIMESTAMPS}", store.values_shape(episode, "rewards")[0]
    try:
        seconds = np.array(times, np.float64)
    except (TypeError, ValueError):
        yield f"{where}: not a list of numbers"
        return
    if seconds.shape != (length,):
        yield f"{where}: shape {seconds.shape} for {length} steps"
        return
    late = np.diff(seconds) * store.spec.control_hz - 1
    for step in np.flatnonzero(np.abs(late) > MAX_JITTER)[:1].tolist():
        yield (
            f"{where}: {1000 * (seconds[step + 1] - seconds[step]):.0f} ms pass between step {step} and {step + 1}, "
            f"but control_hz={store.spec.control_hz:g} implies {1000 / store.spec.control_hz:.0f} ms"
        )


def _check_overridden_steps(store: DemoStore, episode: int) -> Iterator[str]:
    try:
        store.overridden(episode)
    except UserError as error:
        yield str(error)


def _check_images(store: DemoStore, episode: int) -> Iterator[str]:
    directory = store.episode_path(episode) / "images"
    stored = {entry.name for entry in directory.iterdir() if entry.is_dir()} if directory.is_dir() else set()
    for camera in sorted(stored - set(store.spec.cameras)):
        yield f"episode {episode}, camera {camera}: it is not in the DemoSpec"
    for camera in store.spec.cameras:
        where = f"episode {episode}, camera {camera}"
        shape = store.images_shape(episode, camera)
        try:
            frames = open_frames(directory / camera, shape, store.image_codec)
        except CorruptArray as error:
            yield f"{where}: {error}"
            continue
        for number in range(shape[0]):
            try:
                frames.read(number, number + 1)
            except CorruptArray as error:
                yield f"{where}: {error}"
