"""Demonstrations on disk: one Zarr v3 group per episode, committed by renaming.

    store.zarr/zarr.json                     format, version, DemoSpec and image codec in the root group's attributes
    store.zarr/episodes/000000/images/<camera>, state, actions, rewards
    store.zarr/episodes/.tmp-demos-*         being written; invisible to readers

An episode is either complete or absent: it is built in a temporary directory, fsynced, and renamed to the next free
number. Several processes may therefore append at the same time, and a crash costs only the episode being written.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from pixio_robot.data.demos.arrays import FrameFile, open_frames, read_values, write_frames, write_values
from pixio_robot.data.demos.atomic_commit import STAGING, check_new, commit_by_rename
from pixio_robot.data.demos.codecs import RAW
from pixio_robot.data.demos.episode_header import EpisodeHeader, read_header, write_header
from pixio_robot.data.demos.overridden_steps import parse_overridden_steps
from pixio_robot.data.demos.root_metadata import RootMetadata, read_root_metadata, root_attributes
from pixio_robot.data.demos.spec_differences import compare_specs
from pixio_robot.data.demos.validation import VALUES, check_episode, check_spec, images_shape, values_shapes
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.files import disk_full_as_user_error, staging_directory
from pixio_robot.types import DemoSpec, Episode

EPISODES = "episodes"
DEFAULT_RAM_BYTES = 4 << 30
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DiskFull(UserError):
    """The disk is full: an episode was not appended; earlier ones are intact."""


class DemoStore:
    """Episodes 0..len-1 of one DemoSpec. Opening lists the committed episodes; `append` adds one.

    Methods raise UserError for an episode number that does not exist.
    """

    def __init__(self, path: Path, root: RootMetadata, ram_bytes: int) -> None:
        self.path = path
        self.spec = root.spec
        self.image_codec = root.image_codec
        self._headers: list[EpisodeHeader] = []
        self._values: dict[tuple[int, str], np.ndarray] = {}
        self._files: dict[tuple[int, str], FrameFile] = {}
        self._frames: dict[tuple[int, str], np.ndarray] = {}
        self._ram_bytes = ram_bytes
        self._fits_in_ram = True
        # Writers take the next free number, so a gap means that an episode was lost. The last number is read first,
        # because others may commit in the meantime.
        last = self._last_number()
        self.refresh()
        if last >= len(self):
            raise UserError(
                f"{self.episode_path(len(self))} is missing though there are later episodes: "
                f"restore it from a copy, or rename {self.episode_path(last).name} to it."
            )

    def __reduce__(self) -> tuple[Callable[..., DemoStore], tuple[Path, RootMetadata, int]]:
        """Pickle the path only: another process reopens the store instead of receiving the frames held in RAM."""
        return DemoStore, (self.path, RootMetadata(self.spec, self.image_codec), self._ram_bytes)

    @classmethod
    def create(cls, path: str | Path, spec: DemoSpec, *, exist_ok: bool = False, image_codec: str = RAW) -> DemoStore:
        """Create an empty store. Raises UserError if `path` exists, unless it is a store with an equal spec and
        `exist_ok` is set. Image codecs other than `raw` are meant for archives."""
        path = Path(path)
        check_spec(spec)
        if not path.exists():
            check_new(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            with disk_full_as_user_error(path), staging_directory(path.parent, STAGING) as temporary:
                attributes = root_attributes(spec, image_codec)
                root = zarr.create_group(temporary / "store", zarr_format=3, attributes=attributes)
                root.create_group(EPISODES)
                if commit_by_rename(temporary / "store", path):
                    return cls.open(path)
        if not exist_ok:
            raise UserError(f"{path} exists already; choose another path for the demonstrations.")
        store = cls.open(path)
        if differences := compare_specs(store.spec, spec, "it", "the new data"):
            raise UserError(f"{path} contains different demonstrations: {'; '.join(differences.values())}.")
        return store

    @classmethod
    def open(cls, path: str | Path, *, ram_bytes: int = DEFAULT_RAM_BYTES) -> DemoStore:
        """Open for reading and appending. If all images fit into `ram_bytes`, they are kept in RAM once read.

        Raises UserError if `path` is not a store of this format, saying what it is, or if one of its files is damaged.
        """
        path = Path(path)
        return cls(path, read_root_metadata(path), ram_bytes)

    def refresh(self) -> None:
        """List episodes that other processes have committed in the meantime."""
        for number in itertools.count(len(self._headers)):
            header = read_header(self.episode_path(number))
            if header is None:
                break
            self._headers.append(header)
        frame_bytes = sum(camera.height * camera.width * 3 for camera in self.spec.cameras.values())
        self._fits_in_ram = sum(header.length for header in self._headers) * frame_bytes <= self._ram_bytes

    def _last_number(self) -> int:
        """The highest episode number on disk; -1 if there are no episodes."""
        directory = self.path / EPISODES
        if not directory.is_dir():
            raise UserError(f"{directory} is missing: restore it from a copy.")
        return max((int(entry.name) for entry in directory.iterdir() if entry.name.isdecimal()), default=-1)

    def __len__(self) -> int:
        return len(self._headers)

    def __iter__(self) -> Iterator[Episode]:
        return (self.episode(number) for number in range(len(self)))

    def __repr__(self) -> str:
        return f"<DemoStore {self.path}: {len(self)} episodes of {self.spec.task}>"

    def _header(self, episode: int) -> EpisodeHeader:
        if not 0 <= episode < len(self._headers):
            raise UserError(f"{self.path} has {len(self)} episodes, counted from 0; there is no episode {episode}.")
        return self._headers[episode]

    @property
    def lengths(self) -> np.ndarray:
        """Number of steps of every episode, int64."""
        return np.array([header.length for header in self._headers], np.int64)

    @property
    def seeds(self) -> list[int]:
        return [header.seed for header in self._headers]

    @property
    def successes(self) -> list[bool]:
        return [header.success for header in self._headers]

    def nodes(self, episode: int) -> Mapping[str, str]:
        """The checksums that the episode's `zarr.json` files were written with; empty for old episodes."""
        return self._header(episode).nodes

    def info(self, episode: int) -> Mapping[str, Any]:
        return self._header(episode).info

    def overridden(self, episode: int) -> np.ndarray:
        """Which steps were overridden (`overridden_steps`), bool (n,)."""
        header = self._header(episode)
        return parse_overridden_steps(header.info, header.length, str(self.episode_path(episode)))

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
        """Frames start..stop of one camera, uint8 (n, h, w, 3). Do not modify them."""
        end = self._header(episode).length if stop is None else stop
        self._check_frames(episode, start, end)
        if (frames := self._in_ram(episode, camera)) is not None:
            return frames[start:end]
        return self._file(episode, camera).read(start, end)

    def images_into(self, episode: int, camera: str, start: int, frames: np.ndarray) -> None:
        """Read the frames from `start` on into `frames`, contiguous uint8 (n, h, w, 3): `images` without a copy."""
        self._check_frames(episode, start, start + len(frames))
        if (cached := self._in_ram(episode, camera)) is not None:
            frames[...] = cached[start : start + len(frames)]
        else:
            self._file(episode, camera).read_into(start, frames)

    def _check_frames(self, episode: int, start: int, end: int) -> None:
        length = self._header(episode).length
        if not 0 <= start <= end <= length:
            raise UserError(f"{self.episode_path(episode)} has {length} frames; {start}..{end} is out of range.")

    def _in_ram(self, episode: int, camera: str) -> np.ndarray | None:
        """All frames, reading them first if the store's images fit in RAM; else None."""
        key = (episode, camera)
        if key not in self._frames and self._fits_in_ram:
            self._frames[key] = self._file(episode, camera).read(0, self._header(episode).length)
        return self._frames.get(key)

    def _file(self, episode: int, camera: str) -> FrameFile:
        key = (episode, camera)
        if key not in self._files:
            directory = self.episode_path(episode) / "images" / camera
            self._files[key] = open_frames(directory, self.images_shape(episode, camera), self.image_codec)
        return self._files[key]

    def images_fingerprint(self, episode: int, camera: str) -> int:
        """A number that changes with any pixel, computed from the checksums on disk."""
        return self._file(episode, camera).fingerprint()

    def episode(self, episode: int) -> Episode:
        """One episode, whose arrays are read-only: they may be those that the store keeps in RAM."""
        header = self._header(episode)
        images = {camera: self.images(episode, camera) for camera in self.spec.cameras}
        for frames in images.values():
            frames.flags.writeable = False
        return Episode(
            images=images,
            state=self.state(episode),
            actions=self.actions(episode),
            rewards=self.rewards(episode),
            success=header.success,
            seed=header.seed,
            info=header.info,
        )

    def values_shape(self, episode: int, name: str) -> tuple[int, ...]:
        """The shape of state, actions or rewards (VALUES) in an episode."""
        return values_shapes(self.spec, self._header(episode).length)[name]

    def images_shape(self, episode: int, camera: str) -> tuple[int, ...]:
        """(n, h, w, 3). Raises UserError for a camera that is not in the DemoSpec."""
        if camera not in self.spec.cameras:
            raise unknown_name("camera", camera, self.spec.cameras)
        return images_shape(self.spec, camera, self._header(episode).length)

    def episode_path(self, episode: int) -> Path:
        return self.path / EPISODES / f"{episode:06d}"

    def append(self, episode: Episode, *, flush: bool = True) -> int:
        """Commit one episode and return its number. Raises UserError if it does not match the spec, and DiskFull.

        `flush`: on return, the disk has it; False for a caller who flushes the whole store.
        """
        header = check_episode(episode, self.spec)
        try:
            with staging_directory(self.path / EPISODES, STAGING) as temporary:
                _write(temporary / "episode", header, episode, self.image_codec)
                number = len(self)
                while not commit_by_rename(temporary / "episode", self.episode_path(number), flush=flush):
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


def _write(path: Path, header: EpisodeHeader, episode: Episode, image_codec: str) -> None:
    group = zarr.create_group(path, zarr_format=3)
    images = group.create_group("images")
    for camera, frames in episode.images.items():
        write_frames(images, path / "images", camera, frames, image_codec)
    for name in VALUES:
        write_values(group, name, getattr(episode, name))
    write_header(group, path, header)
