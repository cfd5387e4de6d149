"""Building something aside so that it appears whole or not at all, with many writers in one directory."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pixio_robot.files import TEMPORARY_PREFIX, fsync_parent, fsync_tree

PREFIX = f"{TEMPORARY_PREFIX}demos-"


@contextlib.contextmanager
def workplace(directory: Path) -> Iterator[Path]:
    """Yield a directory inside `directory` that no other writer removes, and that is gone afterwards.

    What killed writers left in `directory` is removed first. A living writer is told by the lock that it holds on
    its workplace: unlike a process id, that also works between containers, and the kernel gives it up at any death.
    """
    _remove_dead_workplaces(directory)
    temporary, lock = _locked_workplace(directory)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(lock)


def publish(built: Path, target: Path) -> bool:
    """Flush `built` and rename it to `target`; False, and nothing done, where something else is there already."""
    fsync_tree(built)
    try:
        # Renaming a directory onto one that is not empty fails, so nothing is ever replaced.
        built.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    fsync_parent(target)
    return True


def _locked_workplace(directory: Path) -> tuple[Path, int]:
    while True:
        temporary = Path(tempfile.mkdtemp(prefix=PREFIX, dir=directory))
        try:
            descriptor = os.open(temporary, os.O_RDONLY)
        except FileNotFoundError:
            continue
        # A file system without such locks takes part as well; then what the dead leave there is never removed.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if temporary.exists():
            return temporary, descriptor
        # Another writer took it for a dead one's before it was locked.
        os.close(descriptor)


def _remove_dead_workplaces(directory: Path) -> None:
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
