"""Storage of a Zarr v2 store: a folder or a zip archive. Keys are paths like `data/img/0.0.0.0`."""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from pixio_robot.errors import UserError
from pixio_robot.files import stays_below

EPISODE_ENDS = "meta/episode_ends"
BUFFER = "replay_buffer.zarr"
"""In the folder of a recording of a real robot, beside its films."""
_MARKS = tuple(f"{EPISODE_ENDS}/{name}" for name in (".zarray", "zarr.json"))
_MAX_UNPACKED, _MAX_RATIO = 1 << 30, 100
"""A file of an archive larger than this many bytes is read if it unpacks to at most this multiple of its size."""


class Container(Protocol):
    """A store to read from. Close it after use."""

    def read(self, key: str) -> bytes | None:
        """The content of a file; None if it does not exist."""
        ...

    def children(self, key: str) -> list[str]:
        """The names of the folders directly below `key`, sorted."""
        ...

    def close(self) -> None: ...


class Folder:
    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, key: str) -> bytes | None:
        try:
            return (self._path / key).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None

    def children(self, key: str) -> list[str]:
        folder = self._path / key
        return sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []

    def close(self) -> None:
        return


class Archive:
    """A zip archive. The store may be in a folder of the archive; zarr itself writes it at the top level."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} cannot be opened as a zip archive: {error}.") from error
        self._names = set(self._zip.namelist())
        self._prefix = archive_prefix(self._names) or ""

    def read(self, key: str) -> bytes | None:
        name = self._prefix + key
        if name not in self._names:
            return None
        entry = self._zip.getinfo(name)
        if entry.file_size > max(_MAX_UNPACKED, _MAX_RATIO * entry.compress_size):
            raise UserError(
                f"{name} in {self._path} unpacks from {entry.compress_size} bytes to {entry.file_size}, which would "
                "only exhaust memory: if it is meant so, unpack the archive and open the folder."
            )
        try:
            return self._zip.read(name)
        except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:  # RuntimeError: encrypted
            raise UserError(f"{name} in {self._path} cannot be read: {error}.") from error

    def children(self, key: str) -> list[str]:
        start = f"{self._prefix}{key}/"
        rests = (name.removeprefix(start) for name in self._names if name.startswith(start))
        return sorted({rest.split("/")[0] for rest in rests if "/" in rest})

    def close(self) -> None:
        self._zip.close()


def archive_prefix(names: set[str]) -> str | None:
    """The part of the path before `meta/episode_ends` in the archive; None if there is no such array."""
    for name in sorted(names, key=len):
        for mark in _MARKS:
            if name == mark or name.endswith(f"/{mark}"):
                return name.removesuffix(mark)
    return None


def recognises(path: Path) -> bool:
    """Whether a folder or an archive contains `meta/episode_ends`, or a folder a buffer that does."""
    if path.is_dir():
        return any((folder / mark).is_file() for folder in (path, path / BUFFER) for mark in _MARKS)
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return archive_prefix(set(archive.namelist())) is not None


def open_container(path: Path) -> Container:
    """Open a folder or a zip archive. Raises UserError if `path` is neither."""
    if path.is_dir():
        return Folder(path)
    if not path.exists():
        raise UserError(f"{path} does not exist.")
    return Archive(path)


Write = Callable[[str, bytes], None]
"""Writes the content of a key; each is written once."""


@contextlib.contextmanager
def create_container(path: Path, zipped: bool) -> Iterator[Write]:
    """Create a folder, or an uncompressed zip archive, like zarr's own ZipStore: the chunks are already compressed."""
    if zipped:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            yield archive.writestr
        return
    made: set[Path] = set()

    def write(key: str, content: bytes) -> None:
        if not stays_below(key):
            raise UserError(f"{key!r} would be written outside {path}: rename the camera or array.")
        file = path / key
        if file.parent not in made:
            file.parent.mkdir(parents=True, exist_ok=True)
            made.add(file.parent)
        file.write_bytes(content)

    yield write
