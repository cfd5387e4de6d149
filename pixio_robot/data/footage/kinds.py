"""The kinds of footage to ingest: videos, still images, tars of images, LeRobot data sets, demonstrations."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")


class FootageKind(enum.Enum):
    """VIDEO and DEMONSTRATION have timestamps; IMAGES (of one folder) and TAR only an order."""

    VIDEO = "video"
    IMAGES = "images"
    TAR = "tar"
    DEMONSTRATION = "demonstration"

    @property
    def timed(self) -> bool:
        return self in (FootageKind.VIDEO, FootageKind.DEMONSTRATION)


@dataclasses.dataclass(frozen=True)
class EpisodeCamera:
    """One camera of one episode of the demonstration store at `store`."""

    store: Path
    episode: int
    camera: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Footage:
    """One video (or part of one), the images of one folder or tar in order, or one camera of an episode.

    `id` is the path relative to the source folder; `stamp` changes when a name, size or modification time does.
    Footage with equal `group` shows the same moments (the cameras of an episode) and goes to the same split.
    """

    id: str
    group: str
    kind: FootageKind
    paths: tuple[Path, ...]
    bytes: int
    modified_ns: int
    stamp: str
    segment_s: tuple[float, float] | None = None
    """Start and end of the part of the video file, in seconds; None: the whole file."""
    demonstration: EpisodeCamera | None = None
    problem: str = ""
    """Why it cannot be used, if that is known before reading it."""


def describe_footage(
    identity: str,
    kind: FootageKind,
    paths: Sequence[Path],
    *,
    group: str = "",
    share: float = 1.0,
    segment_s: tuple[float, float] | None = None,
    demonstration: EpisodeCamera | None = None,
    problem: str = "",
) -> Footage:
    """Describe footage in `paths` from file system metadata. `share`: the fraction of the bytes that belongs to it."""
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
    digest.update(repr(segment_s).encode())
    return Footage(
        id=identity,
        group=group or identity,
        kind=kind,
        paths=tuple(paths),
        bytes=round(size * share),
        modified_ns=modified_ns,
        stamp=digest.hexdigest(),
        segment_s=segment_s,
        demonstration=demonstration,
        problem=problem,
    )


def is_tar(path: Path) -> bool:
    return path.name.lower().endswith(TAR_SUFFIXES)


def is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 (a name inside a tar, not a path here)
