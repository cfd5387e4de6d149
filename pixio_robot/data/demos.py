"""Demonstrations on disk: one Zarr v3 group an episode, committed by renaming.

    store.zarr/zarr.json                     format, version, DemoSpec and image codec in the root group's attributes
    store.zarr/episodes/000000/images/<camera>, state, actions, rewards
    store.zarr/episodes/.tmp-demos-*         being written; invisible to readers

An episode is whole or it is not there: it is built aside, fsynced, and renamed to the next free number, so
several processes may append side by side and a kill at any moment costs only the episode being written.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from pixio_robot.data.demo_arrays import FrameFile, open_frames, read_values, write_frames, write_values
from pixio_robot.data.demo_check import VALUES, check_episode, check_spec, images_shape, values_shapes
from pixio_robot.data.demo_codecs import RAW
from pixio_robot.data.demo_commit import publish, workplace
from pixio_robot.data.demo_header import Header, read_header, write_header
from pixio_robot.data.demo_recognition import Root, read_root, root_attributes
from pixio_robot.data.spec_differences import differing
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.types import DemoSpec, Episode

EPISODES = "episodes"
DEFAULT_RAM_BYTES = 4 << 30
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DiskFull(UserError):
    """An episode was not appended; those before it are intact."""


class DemoStore:
    """Episodes 0..len-1 of one DemoSpec. Opening lists what is committed; `append` adds to it."""

    def __init__(self, path: Path, root: Root, ram_bytes: int) -> None:
        self.path = path
        self.spec = root.spec
        self.image_codec = root.image_codec
        self._headers: list[Header] = []
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
        check_spec(spec)
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
        if differences := differing(store.spec, spec, "it", "what is to be added"):
            raise UserError(f"{path} holds demonstrations of something else: {'; '.join(differences.values())}.")
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
            header = read_header(self.episode_path(number))
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

    def nodes(self, episode: int) -> Mapping[str, str]:
        """The checksums that the `zarr.json` files below that episode were written with; none in old ones."""
        return self._headers[episode].nodes

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
        return values_shapes(self.spec, self._headers[episode].length)[name]

    def images_shape(self, episode: int, camera: str) -> tuple[int, ...]:
        """(n, h, w, 3). Raises UserError for a camera that the DemoSpec does not name."""
        if camera not in self.spec.cameras:
            raise unknown_name("camera", camera, self.spec.cameras)
        return images_shape(self.spec, camera, self._headers[episode].length)

    def episode_path(self, episode: int) -> Path:
        return self.path / EPISODES / f"{episode:06d}"

    def append(self, episode: Episode) -> int:
        """Commit one episode and return its number. Raises UserError for a field that does not fit, and DiskFull."""
        header = check_episode(episode, self.spec)
        try:
            with workplace(self.path / EPISODES) as temporary:
                _write(temporary / "episode", header, episode, self.image_codec)
                number = len(self)
                while not publish(temporary / "episode", self.episode_path(number)):
                    number += 1
        except OSError as error:
            if error.errno not in _DISK_FULL:
                raise
            raise DiskFull(
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


def _write(path: Path, header: Header, episode: Episode, image_codec: str) -> None:
    group = zarr.create_group(path, zarr_format=3)
    images = group.create_group("images")
    for camera, frames in episode.images.items():
        write_frames(images, camera, frames, image_codec)
    for name in VALUES:
        write_values(group, name, getattr(episode, name))
    write_header(group, path, header)
