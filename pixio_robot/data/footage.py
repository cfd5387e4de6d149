"""What there is to ingest below a folder: video files, and folders that hold still images."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from pixio_robot.data.video import VIDEO_SUFFIXES
from pixio_robot.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Footage:
    """One video file, or the still images that lie directly in one folder, in order of their names.

    `id` is the path relative to the source folder; `stamp` changes when a name, size or modification time does.
    """

    id: str
    paths: tuple[Path, ...]
    is_video: bool
    bytes: int
    modified_ns: int
    stamp: str


def find_footage(source: str) -> list[Footage]:
    """Everything usable below `source`, sorted by id. Raises UserError when there is nothing."""
    root = Path(source)
    expected = f"a folder with {', '.join(VIDEO_SUFFIXES)} videos or {', '.join(IMAGE_SUFFIXES)} images at any depth"
    if not source or not root.exists():
        raise UserError(f"source {source!r} does not exist; it should be {expected}.")
    if not root.is_dir():
        raise UserError(f"source {source!r} is a file; it should be {expected}.")
    found = sorted(_scan(root), key=lambda footage: footage.id)
    if not found:
        raise UserError(f"source {source!r} holds nothing to ingest; it should be {expected}.")
    return found


def _scan(root: Path) -> Iterator[Footage]:
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        # Hidden files are not footage: macOS leaves a `._clip.mp4` beside every clip.
        paths = [Path(folder, name) for name in sorted(names) if not name.startswith(".")]
        for path in paths:
            if path.suffix.lower() in VIDEO_SUFFIXES:
                yield _footage(path.relative_to(root).as_posix(), (path,), True)
        images = tuple(path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES)
        if images:
            yield _footage(Path(folder).relative_to(root).as_posix() + "/", images, False)


def _footage(identity: str, paths: tuple[Path, ...], is_video: bool) -> Footage:
    digest, size, modified_ns = hashlib.sha256(), 0, 0
    for path in paths:
        try:
            stat = path.stat()
            path_bytes, path_modified_ns = stat.st_size, stat.st_mtime_ns
        except OSError:  # a dangling link: reported when it is read
            path_bytes, path_modified_ns = 0, 0
        size += path_bytes
        modified_ns = max(modified_ns, path_modified_ns)
        digest.update(f"{path.name}\0{path_bytes}\0{path_modified_ns}\0".encode("utf-8", "surrogateescape"))
    return Footage(
        id=identity, paths=paths, is_video=is_video, bytes=size, modified_ns=modified_ns, stamp=digest.hexdigest()
    )
