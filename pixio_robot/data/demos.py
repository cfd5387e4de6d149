"""Demonstrations on disk: one Zarr v3 group an episode, committed by renaming.

    store.zarr/zarr.json                     format, version, DemoSpec and image codec in the root group's attributes
    store.zarr/episodes/000000/images/<camera>, state, actions, rewards
    store.zarr/episodes/.tmp-demos-*         being written; invisible to readers

An episode is whole or it is not there: it is built aside, fsynced, and renamed to the next free number, so
several processes may append side by side and a kill at any moment costs only the episode being written.
"""

from __future__ import annotations

import dataclasses
import errno
import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from pixio_robot.data.demo_arrays import FrameFile, open_frames, read_values, write_frames, write_values
from pixio_robot.data.demo_codecs import RAW
from pixio_robot.data.demo_commit import publish, workplace
from pixio_robot.data.demo_recognition import Root, read_root, root_attributes
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.types import DemoSpec, Episode

EPISODES = "episodes"
VALUES = ("state", "actions", "rewards")
DEFAULT_RAM_BYTES = 4 << 30
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclasses.dataclass(frozen=True, slots=True)
class _Header:
    """The attributes of an episode's group."""

    length: int
    success: bool
    seed: int
    info: dict[str, Any]


class DemoStore:
    """Episodes 0..len-1 of one DemoSpec. Opening lists what is committed; `append` adds to it."""

    def __init__(self, path: Path, root: Root, ram_bytes: int) -> None:
        self.path = path
        self.spec = root.spec
        self.image_codec = root.image_codec
        self._headers: list[_Header] = []
        self._values: dict[tuple[int, str], np.ndarray] = {}
        self._files: dict[tuple[int, str], FrameFile] = {}
        self._frames: dict[tuple[int, str], np.ndarray] = {}
        self._ram_bytes = ram_bytes
        self._fits_in_ram = True
        # Writers take the next free number, so one with nothing before it means that an episode was lost. Listed
        # first, because others may commit meanwhile.
        last = self._last_number()
        self.refresh()
        if last >= len(self):
            raise UserError(
                f"{self.episode_path(len(self))} is missing though there are later episodes: "
                f"restore it from a copy, or rename {self.episode_path(last).name} to it."
            )

    def __reduce__(self) -> tuple[Callable[..., DemoStore], tuple[Path, Root, int]]:
        """Another process opens the store anew instead of being sent the frames held in RAM."""
        return DemoStore, (self.path, Root(self.spec, self.image_codec), self._ram_bytes)

    @classmethod
    def create(cls, path: str | Path, spec: DemoSpec, *, exist_ok: bool = False, image_codec: str = RAW) -> DemoStore:
        """A new, empty store. Raises UserError if something is there already, unless it is a store of an
        equal spec and `exist_ok`. Other codecs than `raw` are for archives."""
        path = Path(path)
        _check_spec(spec)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with workplace(path.parent) as temporary:
                    attributes = root_attributes(spec, image_codec)
                    root = zarr.create_group(temporary / "store", zarr_format=3, attributes=attributes)
                    root.create_group(EPISODES)
                    if publish(temporary / "store", path):
                        return cls.open(path)
            except OSError as error:
                if error.errno not in _DISK_FULL:
                    raise
                raise UserError(f"No space left on the disk to create {path}; nothing was written.") from error
        if not exist_ok:
            raise UserError(f"{path} exists already; choose another place for the demonstrations.")
        store = cls.open(path)
        differences = spec.differences(store.spec) + store.spec.differences(spec)
        if differences:
            raise UserError(f"{path} holds demonstrations of something else: {'; '.join(differences)}.")
        return store

    @classmethod
    def open(cls, path: str | Path, *, ram_bytes: int = DEFAULT_RAM_BYTES) -> DemoStore:
        """Open for reading and appending. If all images take at most `ram_bytes`, they are kept in RAM once read.

        Raises UserError saying what `path` is when it is no store of ours, or which of its files is damaged.
        """
        path = Path(path)
        return cls(path, read_root(path), ram_bytes)

    def refresh(self) -> None:
        """Take notice of episodes that other processes have committed since."""
        for number in itertools.count(len(self._headers)):
            header = _read_header(self.episode_path(number))
            if header is None:
                break
            self._headers.append(header)
        frame_bytes = sum(camera.height * camera.width * 3 for camera in self.spec.cameras.values())
        self._fits_in_ram = sum(header.length for header in self._headers) * frame_bytes <= self._ram_bytes

    def _last_number(self) -> int:
        """The highest number that any episode on the disk has; -1 without one."""
        directory = self.path / EPISODES
        if not directory.is_dir():
            raise UserError(f"{directory} is missing: restore it from a copy.")
        return max((int(entry.name) for entry in directory.iterdir() if entry.name.isdecimal()), default=-1)

    def __len__(self) -> int:
        return len(self._headers)

    @property
    def lengths(self) -> np.ndarray:
        """Steps of every episode, int64."""
        return np.array([header.length for header in self._headers], np.int64)

    @property
    def seeds(self) -> list[int]:
        return [header.seed for header in self._headers]

    @property
    def successes(self) -> list[bool]:
        return [header.success for header in self._headers]

    def info(self, episode: int) -> Mapping[str, Any]:
        return self._headers[episode].info

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
        end = self._headers[episode].length if stop is None else stop
        self._check_frames(episode, start, end)
        if (frames := self._in_ram(episode, camera)) is not None:
            return frames[start:end]
        return self._file(episode, camera).read(start, end)

    def images_into(self, episode: int, camera: str, start: int, frames: np.ndarray) -> None:
        """Fill `frames`, contiguous uint8 (n, h, w, 3), with those from `start` on: `images` without a copy between."""
        self._check_frames(episode, start, start + len(frames))
        if (found := self._in_ram(episode, camera)) is not None:
            frames[...] = found[start : start + len(frames)]
        else:
            self._file(episode, camera).read_into(start, frames)

    def _check_frames(self, episode: int, start: int, end: int) -> None:
        length = self._headers[episode].length
        if not 0 <= start <= end <= length:
            raise UserError(f"{self.episode_path(episode)} has {length} frames, so there is no {start}..{end}.")

    def _in_ram(self, episode: int, camera: str) -> np.ndarray | None:
        """All frames, read by now if all images fit."""
        key = (episode, camera)
        if key not in self._frames and self._fits_in_ram:
            self._frames[key] = self._file(episode, camera).read(0, self._headers[episode].length)
        return self._frames.get(key)

    def _file(self, episode: int, camera: str) -> FrameFile:
        key = (episode, camera)
        if key not in self._files:
            directory = self.episode_path(episode) / "images" / camera
            self._files[key] = open_frames(directory, self.images_shape(episode, camera), self.image_codec)
        return self._files[key]

    def images_fingerprint(self, episode: int, camera: str) -> int:
        """A number that changes with any pixel, from the checksums on the disk."""
        return self._file(episode, camera).fingerprint()

    def episode(self, episode: int) -> Episode:
        header = self._headers[episode]
        return Episode(
            images={camera: self.images(episode, camera) for camera in self.spec.cameras},
            state=self.state(episode),
            actions=self.actions(episode),
            rewards=self.rewards(episode),
            success=header.success,
            seed=header.seed,
            info=header.info,
        )

    def values_shape(self, episode: int, name: str) -> tuple[int, ...]:
        """Of state, actions or rewards (VALUES) of that episode."""
        return _values_shapes(self.spec, self._headers[episode].length)[name]

    def images_shape(self, episode: int, camera: str) -> tuple[int, ...]:
        """(n, h, w, 3). Raises UserError for a camera that the DemoSpec does not name."""
        if camera not in self.spec.cameras:
            raise unknown_name("camera", camera, self.spec.cameras)
        return _images_shape(self.spec, camera, self._headers[episode].length)

    def episode_path(self, episode: int) -> Path:
        return self.path / EPISODES / f"{episode:06d}"

    def append(self, episode: Episode) -> int:
        """Commit one episode and return its number. Raises UserError naming the field that does not fit."""
        header = _check(episode, self.spec)
        try:
            with workplace(self.path / EPISODES) as temporary:
                _write(temporary / "episode", header, episode, self.image_codec)
                number = len(self)
                while not publish(temporary / "episode", self.episode_path(number)):
                    number += 1
        except OSError as error:
            if error.errno not in _DISK_FULL:
                raise
            raise UserError(
                f"No space left on the disk while appending to {self.path}. Its {len(self)} episodes are intact; "
                "free some space and run the same command again."
            ) from error
        self.refresh()
        return number

    def _value(self, episode: int, name: str) -> np.ndarray:
        key = (episode, name)
        if key not in self._values:
            self._values[key] = read_values(self.episode_path(episode) / name, self.values_shape(episode, name))
        return self._values[key]


def _values_shapes(spec: DemoSpec, length: int) -> dict[str, tuple[int, ...]]:
    return {"state": (length, spec.state_dim), "actions": (length, spec.action_dim), "rewards": (length,)}


def _images_shape(spec: DemoSpec, camera: str, length: int) -> tuple[int, ...]:
    return (length, spec.cameras[camera].height, spec.cameras[camera].width, 3)


def _read_header(path: Path) -> _Header | None:
    """None where there is no such episode; UserError where its zarr.json is not as `_write` leaves it."""
    try:
        value = json.loads((path / "zarr.json").read_text())["attributes"]
        header = _Header(**value)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if not path.exists():
            return None
        raise UserError(f"{path / 'zarr.json'} is damaged ({error!r}): restore it from a copy.") from error
    if not (isinstance(header.length, int) and header.length > 0):
        raise UserError(f"{path / 'zarr.json'} is damaged: its length is {header.length!r}.")
    return header


def _write(path: Path, header: _Header, episode: Episode, image_codec: str) -> None:
    group = zarr.create_group(path, zarr_format=3, attributes=dataclasses.asdict(header))
    images = group.create_group("images")
    for camera, frames in episode.images.items():
        write_frames(images, camera, frames, image_codec)
    for name in VALUES:
        write_values(group, name, getattr(episode, name))


def _check_spec(spec: DemoSpec) -> None:
    """What could not be stored or read again."""
    for name, camera in spec.cameras.items():
        if not name or name.startswith((".", "__")) or "/" in name:
            raise UserError(f"The camera name {name!r} cannot name a folder: leave out '/' and a leading '.' or '__'.")
        if camera.height < 1 or camera.width < 1:
            raise UserError(f"Camera {name!r} has {camera.height} x {camera.width} pixels.")
    for which, dimension in (("state_names", spec.state_dim), ("action_names", spec.action_dim)):
        if dimension == 0:
            raise UserError(f"The DemoSpec's {which} is empty: name at least one dimension.")


def _check(episode: Episode, spec: DemoSpec) -> _Header:
    """What to write of the episode beside its arrays, when all of it fits."""
    if episode.actions.ndim == 0 or len(episode) == 0:
        raise UserError("An episode needs at least one step, and this one's actions have none.")
    for name, shape in _values_shapes(spec, len(episode)).items():
        _check_array(f"The episode's {name}", getattr(episode, name), "float32", shape)
        finite = np.isfinite(getattr(episode, name))
        if not finite.all():
            raise UserError(
                f"The episode's {name} has a value that is not finite at step {np.argwhere(~finite)[0][0]}."
            )
    if set(episode.images) != set(spec.cameras):
        raise UserError(f"The episode has cameras {sorted(episode.images)}; the DemoSpec names {sorted(spec.cameras)}.")
    for camera, frames in episode.images.items():
        shape = _images_shape(spec, camera, len(episode))
        _check_array(f"The episode's images of {camera!r}", frames, "uint8", shape)
    info = dict(episode.info)
    try:
        same = json.loads(json.dumps(info, allow_nan=False)) == info
    except (TypeError, ValueError):
        same = False
    if not same:
        raise UserError(f"The episode's info must be plain JSON (finite numbers, text, lists, text keys): {info!r}.")
    return _Header(len(episode), bool(episode.success), int(episode.seed), info)


def _check_array(what: str, values: np.ndarray, dtype: str, shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise UserError(f"{what} has shape {values.shape}; the DemoSpec asks for {shape}.")
    if values.dtype != dtype:
        raise UserError(f"{what} has dtype {values.dtype}; it must be {dtype}.")
