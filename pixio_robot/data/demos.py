"""Demonstrations on disk: one Zarr v3 group an episode, committed by renaming.

    store.zarr/zarr.json                     format, version and DemoSpec in the root group's attributes
    store.zarr/episodes/000000/images/<camera>, state, actions, rewards
    store.zarr/episodes/.tmp-<pid>-<start>-* being written; invisible to readers

An episode is whole or it is not there: it is built aside, fsynced, and renamed to the next free number, so
several processes may append side by side and a kill at any moment costs only the episode being written.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from pixio_robot.data.demo_arrays import FrameFile, read_values, write_frames, write_values
from pixio_robot.errors import UserError
from pixio_robot.files import TEMPORARY_PREFIX, atomic_directory, fsync_parent, fsync_tree
from pixio_robot.types import DemoSpec, Episode

FORMAT = "pixio_robot.demos"
FORMAT_VERSION = 1
EPISODES = "episodes"
_VALUES = ("state", "actions", "rewards")
DEFAULT_RAM_BYTES = 4 << 30


class DemoStore:
    """Episodes 0..len-1 of one DemoSpec. Opening lists what is committed; `append` adds to it."""

    def __init__(self, path: Path, spec: DemoSpec, ram_bytes: int) -> None:
        self.path = path
        self.spec = spec
        self._headers: list[dict[str, Any]] = []
        self._values: dict[tuple[int, str], np.ndarray] = {}
        self._files: dict[tuple[int, str], FrameFile] = {}
        self._frames: dict[tuple[int, str], np.ndarray] = {}
        self._ram_bytes = ram_bytes
        self._fits_in_ram = True
        self.refresh()

    @classmethod
    def create(cls, path: str | Path, spec: DemoSpec, *, exist_ok: bool = False) -> DemoStore:
        """A new, empty store. Raises UserError if something is there already, unless it is a store of an
        equal spec and `exist_ok`."""
        path = Path(path)
        if path.exists():
            if not exist_ok:
                raise UserError(f"{path} exists already; choose another place for the demonstrations.")
            store = cls.open(path)
            differences = spec.differences(store.spec) + store.spec.differences(spec)
            if differences:
                raise UserError(f"{path} holds demonstrations of something else: {'; '.join(differences)}.")
            return store
        with atomic_directory(path) as temporary:
            attributes = {"format": FORMAT, "format_version": FORMAT_VERSION, "spec": spec.to_json()}
            root = zarr.create_group(temporary, zarr_format=3, attributes=attributes)
            root.create_group(EPISODES)
        return cls.open(path)

    @classmethod
    def open(cls, path: str | Path, *, ram_bytes: int = DEFAULT_RAM_BYTES) -> DemoStore:
        """Open for reading and appending. Images up to `ram_bytes` in all are kept in RAM once read.

        Raises UserError saying what `path` is when it is no store of ours.
        """
        path = Path(path)
        attributes = _attributes(path)
        if attributes["format_version"] != FORMAT_VERSION:
            raise UserError(
                f"{path} has format_version {attributes['format_version']}, but this version of pixio-robot reads "
                f"{FORMAT_VERSION}: read it with the version that wrote it."
            )
        try:
            spec = DemoSpec.from_json(attributes["spec"])
        except (KeyError, TypeError) as error:
            raise UserError(f"{path / 'zarr.json'} has no usable DemoSpec ({error!r}).") from error
        return cls(path, spec, ram_bytes)

    def refresh(self) -> None:
        """Take notice of episodes that other processes have committed since."""
        for number in itertools.count(len(self._headers)):
            header = self.path / EPISODES / f"{number:06d}" / "zarr.json"
            try:
                self._headers.append(json.loads(header.read_text())["attributes"])
            except FileNotFoundError:
                break
            except (json.JSONDecodeError, KeyError) as error:
                raise UserError(f"{header} is damaged ({error!r}).") from error
        frame_bytes = sum(camera.height * camera.width * 3 for camera in self.spec.cameras.values())
        self._fits_in_ram = int(self.lengths.sum()) * frame_bytes <= self._ram_bytes

    def __len__(self) -> int:
        return len(self._headers)

    @property
    def lengths(self) -> np.ndarray:
        """Steps of every episode, int64."""
        return np.array([header["length"] for header in self._headers], np.int64)

    @property
    def seeds(self) -> list[int]:
        return [header["seed"] for header in self._headers]

    @property
    def successes(self) -> list[bool]:
        return [header["success"] for header in self._headers]

    def info(self, episode: int) -> Mapping[str, Any]:
        return self._headers[episode]["info"]

    def state(self, episode: int) -> np.ndarray:
        """float32 (n, s)."""
        return self._value(episode, "state")

    def actions(self, episode: int) -> np.ndarray:
        """float32 (n, a)."""
        return self._value(episode, "actions")

    def rewards(self, episode: int) -> np.ndarray:
        """float32 (n,)."""
        return self._value(episode, "rewards")

    def images(self, episode: int, camera: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Frames start..stop of one camera, uint8 (n, h, w, 3). Not to be written to."""
        length = self._headers[episode]["length"]
        end = length if stop is None else stop
        if not 0 <= start <= end <= length:
            raise UserError(f"{self._episode_path(episode)} has {length} frames, so there is no {start}..{end}.")
        key = (episode, camera)
        if key in self._frames:
            return self._frames[key][start:end]
        if key not in self._files:
            self._files[key] = FrameFile(self._episode_path(episode) / "images" / camera)
        if self._fits_in_ram:
            self._frames[key] = self._files[key].read(0, length, verify=True)
            return self._frames[key][start:end]
        return self._files[key].read(start, end)

    def episode(self, episode: int) -> Episode:
        return Episode(
            images={camera: self.images(episode, camera) for camera in self.spec.cameras},
            state=self.state(episode),
            actions=self.actions(episode),
            rewards=self.rewards(episode),
            success=self._headers[episode]["success"],
            seed=self._headers[episode]["seed"],
            info=self.info(episode),
        )

    def append(self, episode: Episode) -> int:
        """Commit one episode and return its number. Raises UserError naming the field that does not fit."""
        _check(episode, self.spec)
        directory = self.path / EPISODES
        _sweep_dead_writers(directory)
        temporary = Path(tempfile.mkdtemp(prefix=_writer_prefix(os.getpid()), dir=directory))
        try:
            _write(temporary / "episode", episode)
            fsync_tree(temporary)
            number = self._commit(temporary / "episode")
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise UserError(
                f"No space left on the disk while appending to {self.path}. Its {len(self)} episodes are intact; "
                "free some space and run the same command again."
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        self.refresh()
        return number

    def _commit(self, built: Path) -> int:
        """Rename to the next free number; another writer may be faster, then to the one after."""
        number = len(self)
        while True:
            target = self._episode_path(number)
            try:
                # Renaming a directory onto a non-empty one fails, so no episode is ever replaced.
                built.rename(target)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                number += 1
                continue
            fsync_parent(target)
            return number

    def _episode_path(self, number: int) -> Path:
        return self.path / EPISODES / f"{number:06d}"

    def _value(self, episode: int, name: str) -> np.ndarray:
        key = (episode, name)
        if key not in self._values:
            self._values[key] = read_values(self._episode_path(episode) / name)
        return self._values[key]


def _write(path: Path, episode: Episode) -> None:
    header = {
        "length": len(episode),
        "success": bool(episode.success),
        "seed": int(episode.seed),
        "info": dict(episode.info),
    }
    group = zarr.create_group(path, zarr_format=3, attributes=header)
    images = group.create_group("images")
    for camera, frames in episode.images.items():
        write_frames(images, camera, frames)
    for name in _VALUES:
        write_values(group, name, np.ascontiguousarray(getattr(episode, name), np.float32))


def _check(episode: Episode, spec: DemoSpec) -> None:
    n = len(episode)
    if n == 0:
        raise UserError("An episode needs at least one step, and this one has none.")
    wanted: Sequence[tuple[str, np.ndarray, tuple[int, ...]]] = (
        ("state", episode.state, (n, spec.state_dim)),
        ("actions", episode.actions, (n, spec.action_dim)),
        ("rewards", episode.rewards, (n,)),
    )
    for name, values, shape in wanted:
        if values.shape != shape:
            raise UserError(f"The episode's {name} has shape {values.shape}; the DemoSpec asks for {shape}.")
        if not np.isfinite(values).all():
            row = int(np.argwhere(~np.isfinite(values))[0][0])
            raise UserError(f"The episode's {name} has a value that is not finite at step {row}.")
    if set(episode.images) != set(spec.cameras):
        raise UserError(f"The episode has cameras {sorted(episode.images)}; the DemoSpec names {sorted(spec.cameras)}.")
    for camera, size in spec.cameras.items():
        frames, shape = episode.images[camera], (n, size.height, size.width, 3)
        if frames.shape != shape or frames.dtype != np.uint8:
            raise UserError(
                f"The episode's images of {camera!r} are {frames.dtype} {frames.shape}; "
                f"the DemoSpec asks for uint8 {shape}."
            )


def _attributes(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise UserError(f"There is no demonstration store {path}.")
    try:
        attributes = json.loads((path / "zarr.json").read_text())["attributes"]
        if attributes["format"] == FORMAT:
            return attributes
    except (OSError, json.JSONDecodeError, KeyError, TypeError):
        pass
    raise UserError(f"{path} is {_what_it_is(path)}, not a demonstration store of pixio-robot (made by `collect`).")


def _what_it_is(path: Path) -> str:
    """Names the formats of other tools that people are likely to point at."""
    if path.is_file():
        return "a robomimic HDF5 file" if path.suffix in (".hdf5", ".h5") else "a file"
    if (path / "meta" / "info.json").is_file():
        return "a LeRobot data set"
    if (path / "meta" / "episode_ends").is_dir():
        return "a replay buffer of diffusion_policy"
    if (path / "manifest.json").is_file() and list(path.glob("*.tar")):
        return "a folder of frame shards"
    if (path / "zarr.json").is_file() or (path / ".zgroup").is_file():
        return "another tool's Zarr store"
    return "a folder"


def _start_time(pid: int) -> str | None:
    """When a process began [clock ticks since boot]; with the pid it names a process for good."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None


def _writer_prefix(pid: int) -> str:
    return f"{TEMPORARY_PREFIX}{pid}-{_start_time(pid)}-"


def _sweep_dead_writers(directory: Path) -> None:
    """Remove half-built episodes whose process is gone; those of living writers stay."""
    for leftover in directory.glob(f"{TEMPORARY_PREFIX}*"):
        pid, start, _ = leftover.name.removeprefix(TEMPORARY_PREFIX).split("-", 2)
        if _start_time(int(pid)) != start:
            shutil.rmtree(leftover, ignore_errors=True)
