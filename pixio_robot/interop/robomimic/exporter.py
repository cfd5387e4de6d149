"""Export of a demonstration store to a robomimic file, one episode at a time."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pixio_robot.data.actions.named_columns import group_columns_by_key
from pixio_robot.data.demos.editing.convert_actions import ABSOLUTE
from pixio_robot.data.demos.editing.rewrite import open_for_streaming
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.errors import UserError
from pixio_robot.interop.demo_formats import Conversion, write_atomically
from pixio_robot.interop.hdf5 import read_dataset
from pixio_robot.interop.robomimic.env_args import env_args_from_spec
from pixio_robot.interop.robomimic.env_metadata import takes_delta_poses
from pixio_robot.interop.robomimic.hdf5_file import DEMO_PREFIX, RobomimicFile, demo_number, is_demo_name
from pixio_robot.interop.robomimic.observations import IMAGE
from pixio_robot.interop.robomimic.settings import DEMO, ENV_ARGS, INFO, MASK, SPEC, ExportConfig
from pixio_robot.progress import track_progress
from pixio_robot.types import DemoSpec, Episode

_FROM_ORIGINAL = ("model_file", "ep_meta", "camera_info")


def export_demos(store_path: Path, out: Path, config: ExportConfig) -> Conversion:
    """Export the store. Raises UserError for an unsuitable store or original, and then writes nothing."""
    store = open_for_streaming(store_path)
    names = _demo_names(store)
    keys = group_columns_by_key(store.spec.state_names)
    for camera in store.spec.cameras:
        if f"{camera}{IMAGE}" in keys:
            raise UserError(f"The state and the camera {camera} of {store_path} would both become {camera}{IMAGE}.")
    masks: dict[str, list[str]] = {}
    with contextlib.ExitStack() as stack:
        original = stack.enter_context(RobomimicFile(Path(config.original))) if config.original else None
        file = stack.enter_context(h5py.File(stack.enter_context(write_atomically(out)), "w"))
        data = file.create_group("data")
        env_args, notes = _env_args(store)
        data.attrs["env_args"] = json.dumps(env_args, indent=4)
        data.attrs["total"] = int(store.lengths.sum())
        data.attrs[SPEC] = json.dumps(store.spec.to_json())
        for number in track_progress(range(len(store)), f"write {out}"):
            episode = store.episode(number)
            group = data.create_group(names[number])
            _write_episode(group, episode, store.spec, keys, config)
            if original is not None:
                _copy_from_original(group, episode, original)
            for key, belongs in episode.info.items():
                if key.startswith(MASK) and belongs is True:
                    masks.setdefault(key.removeprefix(MASK), []).append(names[number])
        for mask, members in masks.items():
            # As robomimic writes them: fixed-length bytes.
            file[f"mask/{mask}"] = np.array(members, "S")
    if original is None:
        notes.append("states and model_file are missing: original= copies them from the file the episodes came from")
    if config.next_obs:
        notes.append("the last next_obs of each demonstration repeats its last observation")
    return Conversion(episodes=len(store), frames=int(store.lengths.sum()), notes=notes)


def _demo_names(store: DemoStore) -> list[str]:
    """The names in the file the episodes came from, if every episode has a valid one; otherwise numbered from 0."""
    names = [str(store.info(number).get(DEMO, "")) for number in range(len(store))]
    # Names must be in numeric order, because readers sort by number.
    if all(map(is_demo_name, names)) and all(
        a < b for a, b in zip(map(demo_number, names), map(demo_number, names[1:]), strict=False)
    ):
        return names
    return [f"{DEMO_PREFIX}{number}" for number in range(len(store))]


def _env_args(store: DemoStore) -> tuple[dict[str, Any], list[str]]:
    """The episodes' own env_args if all are equal, otherwise derived from the DemoSpec."""
    env_args = [store.info(number).get(ENV_ARGS) for number in range(len(store))]
    if env_args[0] and all(one == env_args[0] for one in env_args):
        if ABSOLUTE in store.spec.controller and takes_delta_poses(env_args[0]):
            return env_args[0], [
                "env_args describe deltas, as in the original file, but the actions are absolute poses"
            ]
        return env_args[0], []
    return env_args_from_spec(store.spec)


def _write_episode(
    group: h5py.Group, episode: Episode, spec: DemoSpec, keys: dict[str, list[int]], config: ExportConfig
) -> None:
    length = len(episode)
    group.attrs["num_samples"] = length
    group.attrs[INFO] = json.dumps({"success": episode.success, "seed": episode.seed, "info": dict(episode.info)})
    group["actions"] = episode.actions
    group["rewards"] = episode.rewards
    dones = np.zeros(length, np.int64)
    dones[-1] = 1
    group["dones"] = dones
    for key, columns in keys.items():
        _write_observation(group, key, episode.state[:, columns], config, {})
    for camera, frames in episode.images.items():
        packing = {"compression": "gzip", "chunks": (1, *frames.shape[1:])} if config.compress else {}
        _write_observation(group, f"{camera}{IMAGE}", frames, config, packing)


def _write_observation(
    group: h5py.Group, key: str, values: np.ndarray, config: ExportConfig, packing: dict[str, Any]
) -> None:
    group.create_dataset(f"obs/{key}", data=values, **packing)
    if config.next_obs:
        after = np.concatenate([values[1:], values[-1:]])
        group.create_dataset(f"next_obs/{key}", data=after, **packing)


def _copy_from_original(group: h5py.Group, episode: Episode, original: RobomimicFile) -> None:
    """Copy states and model of the demonstration the episode came from, identified by its name and its actions."""
    name = str(episode.info.get(DEMO, ""))
    if name not in original.demos:
        raise UserError(f"{original.path} has no demonstration {name!r}, which {group.name} was imported from.")
    source = original.demo(name)
    actions = read_dataset(source, "actions", original.path)
    if actions.shape != episode.actions.shape or not np.array_equal(actions.astype(np.float32), episode.actions):
        raise UserError(f"{original.path}: the actions of {name} differ from those of the episode imported as {name}.")
    for key in _FROM_ORIGINAL:
        if key in source.attrs:
            group.attrs[key] = source.attrs[key]
    if "states" in source:
        group["states"] = read_dataset(source, "states", original.path)
