"""Reads a robomimic HDF5 file: its demonstrations in numeric order, its masks, and its description of the environment.

Files written by robosuite's recorder and by Isaac Lab, without robomimic's additions, are supported too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py

from pixio_robot.errors import UserError, unknown_name
from pixio_robot.interop.hdf5 import get_dataset, open_hdf5

ROBOSUITE = 1
"""robomimic's number for robosuite environments; 2 is Gym, which Isaac Lab uses too."""
GYM = 2
DEMO_PREFIX = "demo_"
LIBERO_TASK = "bddl_file_name"
"""The attribute of `data` by which LIBERO's files differ: it names the file that defines the task."""
_RECORDER = ("env", "env_info", "repository_version")


class RobomimicFile:
    """A robomimic file opened for reading; a context manager. Raises UserError for a file of another format,
    and as `open_hdf5` does.

    `masks`: mask -> its demonstrations in the file. `absent`: mask -> how many it names that the file does not contain,
    as in files that robomimic's dataset_states_to_obs.py wrote with `--n`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise UserError(f"{path} is not a file.")
        self._file = open_hdf5(path)
        try:
            self._data = self._group(self._file, "data")
            self.demos = self._numeric_order()
            self.masks, self.absent = self._read_masks()
            self.env_args = self._read_env_args()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> RobomimicFile:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    @property
    def attributes(self) -> Mapping[str, Any]:
        return self._data.attrs

    def demo(self, name: str) -> h5py.Group:
        return self._group(self._data, name)

    def chosen(self, mask: str) -> list[str]:
        """All demonstrations, or those of one mask, in numeric order. Raises UserError for an unknown mask, and for one
        without demonstrations in the file."""
        if not mask:
            return self.demos
        if mask not in self.masks:
            raise unknown_name(f"mask of {self.path}", mask, self.masks)
        members = set(self.masks[mask])
        if not members:
            why = "names only demonstrations that are not in the file" if mask in self.absent else "is empty"
            raise UserError(f"The mask {mask} of {self.path} {why}.")
        return [name for name in self.demos if name in members]

    def length(self, demo: str) -> int:
        """Number of steps. Raises UserError if `num_samples` or the length of an array disagrees with `actions`."""
        group = self.demo(demo)
        length = len(get_dataset(group, "actions", self.path))
        num_samples = group.attrs.get("num_samples", length)
        if num_samples != length:
            raise UserError(f"{self.path}: {demo} has num_samples {num_samples}, but {length} actions.")
        for key in ("states", "rewards", "dones"):
            # Isaac Lab's `states` is a group.
            array = group.get(key)
            if isinstance(array, h5py.Dataset) and len(array) != length:
                raise UserError(f"{self.path}: {demo} has {len(array)} {key}, but {length} actions.")
        if length == 0:
            raise UserError(f"{self.path}: {demo} has no actions.")
        return length

    def model_file(self, demo: str) -> str | None:
        text = self.demo(demo).attrs.get("model_file")
        return text.decode() if isinstance(text, bytes) else text

    def ep_meta(self, demo: str) -> dict[str, Any]:
        """What robosuite 1.5 and RoboCasa note about one episode; empty if there is nothing."""
        text = self.demo(demo).attrs.get("ep_meta")
        return self._json("ep_meta", text, demo) if text else {}

    def _group(self, parent: Any, name: str) -> h5py.Group:
        group = parent.get(name)
        if not isinstance(group, h5py.Group):
            raise UserError(f"{self.path} is not a robomimic file: it has no group {name}.")
        return group

    def _numeric_order(self) -> list[str]:
        """The demonstrations in numeric order; sorted as strings, demo_10 would come before demo_2."""
        names = [name for name in map(str, self._data) if is_demo_name(name)]
        if not names:
            raise UserError(
                f"{self.path} is not a robomimic file: its group data has no {DEMO_PREFIX}0, {DEMO_PREFIX}1, ..."
            )
        return sorted(names, key=demo_number)

    def _read_masks(self) -> tuple[dict[str, list[str]], dict[str, int]]:
        group = self._file.get("mask")
        if not isinstance(group, h5py.Group):
            return {}, {}
        masks, absent, demos = {}, {}, set(self.demos)
        for name, values in group.items():
            members = [value.decode() if isinstance(value, bytes) else str(value) for value in values[()]]
            masks[name] = [member for member in members if member in demos]
            if missing := len(set(members) - demos):
                absent[name] = missing
        return masks, absent

    def _read_env_args(self) -> dict[str, Any]:
        """robomimic's env_args, or the attributes of robosuite's recorder in that form; empty if there is neither."""
        attributes = self._data.attrs
        text = attributes.get("env_args")
        if text is None and all(key in attributes for key in _RECORDER):
            arguments = self._json("env_info", attributes["env_info"])
            arguments.pop("env_name", None)
            return {
                "env_name": str(attributes["env"]),
                "env_version": str(attributes["repository_version"]),
                "type": ROBOSUITE,
                "env_kwargs": arguments,
            }
        return {} if text is None else self._json("env_args", text)

    def _json(self, key: str, text: Any, owner: str = "data") -> dict[str, Any]:
        try:
            value = json.loads(text)
        except (ValueError, TypeError) as error:
            raise UserError(f"{self.path}: the attribute {key} of {owner} is not valid JSON ({error}).") from error
        if not isinstance(value, dict):
            raise UserError(f"{self.path}: the attribute {key} of {owner} is not a JSON object.")
        return value


def has_states(group: h5py.Group) -> bool:
    """Whether a demonstration contains MuJoCo's flattened states, one row per step."""
    return isinstance(group.get("states"), h5py.Dataset)


def is_demo_name(name: str) -> bool:
    return name.startswith(DEMO_PREFIX) and name.removeprefix(DEMO_PREFIX).isdecimal()


def demo_number(name: str) -> int:
    return int(name.removeprefix(DEMO_PREFIX))


def recognises(path: Path) -> bool:
    """Whether this is an HDF5 file with a group `data` that contains a `demo_...`, and none of LIBERO."""
    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    try:
        with h5py.File(path, "r") as file:
            data = file.get("data")
            if not isinstance(data, h5py.Group) or LIBERO_TASK in data.attrs:
                return False
            return any(str(name).startswith(DEMO_PREFIX) for name in data)
    except OSError:
        return False
