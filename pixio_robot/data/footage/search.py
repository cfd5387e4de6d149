"""Searching a source folder for footage."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from pixio_robot.data.footage.datasets import demonstration_footage, is_zarr, lerobot_footage, lerobot_info_path
from pixio_robot.data.footage.kinds import IMAGE_SUFFIXES, Footage, FootageKind, describe_footage, is_image, is_tar
from pixio_robot.data.video.container import VIDEO_SUFFIXES
from pixio_robot.errors import UserError


def find_footage(
    source: str, *, leave_out: Path | None = None, on_other: Callable[[str], None] = lambda name: None
) -> list[Footage]:
    """All footage in `source`, searched recursively and sorted by id. Raises UserError if there is none, and for a
    folder that cannot be read.

    The folder `leave_out` is skipped. `on_other` is called with the name of every file that is not footage. Links to
    other folders are followed.
    """
    root = Path(source)
    expected = (
        f"a folder with {', '.join(VIDEO_SUFFIXES)} videos, {', '.join(IMAGE_SUFFIXES)} images, tars of such images, "
        "LeRobot data sets or Zarr demonstrations, searched recursively"
    )
    if not source or not root.exists():
        raise UserError(f"source {source!r} does not exist; it should be {expected}.")
    if not root.is_dir():
        raise UserError(f"source {source!r} is a file; it should be {expected}.")
    found = sorted(_search(root, leave_out, on_other), key=lambda footage: footage.id)
    if not found:
        raise UserError(f"source {source!r} contains nothing to ingest; it should be {expected}.")
    return found


def _search(root: Path, leave_out: Path | None, on_other: Callable[[str], None]) -> Iterator[Footage]:
    plain: list[tuple[str, str, list[Path]]] = []
    seen = set() if leave_out is None else {os.path.realpath(leave_out)}
    # Linked folders wait until all others are known: a folder keeps its own name, whatever links to it.
    waiting = [root]
    while waiting:
        for folder, folders, names in os.walk(waiting.pop(0), onerror=_raise_unreadable):
            here, real = Path(folder), os.path.realpath(folder)
            if real in seen:  # a link to a folder searched already, or `leave_out`
                folders.clear()
                continue
            seen.add(real)
            prefix = "" if here == root else here.relative_to(root).as_posix() + "/"
            if lerobot_info_path(here).is_file():
                folders.clear()
                yield from lerobot_footage(here, prefix)
                continue
            if is_zarr(here):
                folders.clear()
                yield from demonstration_footage(here, prefix)
                continue
            visible = sorted(name for name in folders if not name.startswith("."))
            linked = {name for name in visible if (here / name).is_symlink()}
            waiting += [here / name for name in visible if name in linked]
            folders[:] = [name for name in visible if name not in linked]
            # Hidden files are not footage: macOS creates a `._clip.mp4` beside every clip.
            plain.append((prefix, real, [here / name for name in sorted(names) if not name.startswith(".")]))
    for prefix, candidates in _without_duplicate_links(plain):
        paths = []
        for path in candidates:
            if _is_device(path):
                on_other(f"{path.name} (no regular file)")
                continue
            paths.append(path)
            if path.suffix.lower() in VIDEO_SUFFIXES or _is_dangling_folder_link(path):
                yield describe_footage(prefix + path.name, FootageKind.VIDEO, [path])
            elif is_tar(path):
                yield describe_footage(prefix + path.name, FootageKind.TAR, [path])
            elif not is_image(path.name):
                on_other(path.name)
        images = [path for path in paths if is_image(path.name)]
        if images:
            yield describe_footage(prefix or "./", FootageKind.IMAGES, images)


def _raise_unreadable(error: OSError) -> NoReturn:
    """Left out, its frames would vanish from the shards."""
    raise UserError(
        f"The folder {error.filename} in the source cannot be read ({error.strerror}): mend that, or move it away."
    ) from error


def _is_dangling_folder_link(path: Path) -> bool:
    """Whether it is a link to nothing with a folder's name, such as that of a disk which is not mounted: it is reported
    as footage that cannot be read."""
    return not path.suffix and path.is_symlink() and not path.exists()


def _is_device(path: Path) -> bool:
    """Whether it is a pipe, a socket or a device, or a link to one: reading it may never end."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:  # a dangling link, which is reported as footage that cannot be read
        return False


def _is_footage(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES or is_tar(path) or is_image(path.name)


def _without_duplicate_links(folders: list[tuple[str, str, list[Path]]]) -> list[tuple[str, list[Path]]]:
    """(prefix, files) of every (prefix, real path, files), without duplicate links: of a file and links to it, only the
    file is kept; of several links to a file elsewhere, only the first."""
    chosen: dict[str, Path] = {}
    links: dict[Path, str] = {}
    for _, _, paths in folders:
        for path in paths:
            # In a hub's cache files have no suffix; only the links to them show that they are footage.
            if _is_footage(path) and path.is_symlink():
                links[path] = os.path.realpath(path)
                chosen.setdefault(links[path], path)
    if links:
        for _, real, paths in folders:
            for path in paths:
                if path not in links and _is_footage(path) and (place := os.path.join(real, path.name)) in chosen:  # noqa: PTH118 (many files)
                    chosen[place] = path
    return [
        (prefix, [path for path in paths if path not in links or chosen[links[path]] == path])
        for prefix, _, paths in folders
    ]
