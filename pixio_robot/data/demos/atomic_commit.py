"""Atomic commits by building in a temporary directory and renaming, with many writers in one directory."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pixio_robot.errors import UserError
from pixio_robot.files import TEMPORARY_PREFIX, fsync_parent, fsync_tree

PREFIX = f"{TEMPORARY_PREFIX}demos-"


@contextlib.contextmanager
def staging_directory(directory: Path) -> Iterator[Path]:
    """Yield a temporary directory inside `directory` that no other writer removes; it is deleted afterwards.

    First removes what crashed writers left in `directory`. A running writer holds a lock on its workplace: unlike a
    process id, this also works between containers, and the kernel releases it however the process ends.
    """
    _remove_abandoned_directories(directory)
    temporary, lock = _create_locked_directory(directory)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(lock)


def check_new(out: Path) -> None:
    """Raise UserError unless something new can be made at `out`: nothing is there, and it is not within a Zarr store,
    which could not be read any more."""
    if out.exists():
        raise UserError(f"{out} already exists; choose another out=.")
    if out.is_symlink():
        raise UserError(f"{out} is a symbolic link to {out.readlink()}, which does not exist: choose another out=.")
    for parent in reversed(out.resolve().parents):
        if (parent / "zarr.json").is_file():
            raise UserError(f"{out} is inside the store {parent}, which it would damage: choose another out=.")


def commit_by_rename(built: Path, target: Path) -> bool:
    """Flush `built` and rename it to `target`. If `target` already exists, do nothing and return False."""
    fsync_tree(built)
    try:
        # Renaming a directory onto a non-empty one fails, so nothing is ever replaced.
        built.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    fsync_parent(target)
    return True


def _create_locked_directory(directory: Path) -> tuple[Path, int]:
    while True:
        temporary = Path(tempfile.mkdtemp(prefix=PREFIX, dir=directory))
        try:
            descriptor = os.open(temporary, os.O_RDONLY)
        except FileNotFoundError:
            continue
        # File systems without locks are supported too, but what crashed writers leave there is never removed.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if temporary.exists():
            return temporary, descriptor
        # Another writer removed it as abandoned before it was locked.
        os.close(descriptor)


def _remove_abandoned_directories(directory: Path) -> None:
    for leftover in directory.glob(f"{PREFIX}*"):
        try:
            descriptor = os.open(leftover, os.O_RDONLY)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(leftover, ignore_errors=True)
        except OSError:
            pass
        finally:
            os.close(descriptor)
