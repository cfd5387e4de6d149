"""Atomic file and directory writes: a crash never leaves a partial file in place of a complete one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pixio_robot.errors import UserError

TEMPORARY_PREFIX = ".tmp-"
RETIRED_PREFIX = f"{TEMPORARY_PREFIX}retired-"


def fsync_tree(path: Path) -> None:
    """Flush a file, or a directory with everything below it, to the disk."""
    if path.is_dir():
        for child in path.iterdir():
            fsync_tree(child)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def disk_full_as_user_error(path: Path) -> Iterator[None]:
    """Turn a full disk into a UserError while `path` is written; the caller must discard the partial output."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"No space left on the disk while writing {path}. The incomplete output was removed; "
            "free some space and run the same command again."
        ) from error


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` to fill; on success it is fsynced and renamed to `path`.

    An existing `path` is replaced. On any exception the temporary directory is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY_PREFIX}{path.name}-", dir=path.parent))
    try:
        with disk_full_as_user_error(path):
            temporary.chmod(0o755)
            yield temporary
            fsync_tree(temporary)
        if path.exists():
            retired = Path(tempfile.mkdtemp(prefix=f"{RETIRED_PREFIX}{path.name}-", dir=path.parent)) / "old"
            path.rename(retired)
            try:
                temporary.rename(path)
            except BaseException:
                retired.rename(path)
                retired.parent.rmdir()
                raise
            shutil.rmtree(retired.parent)
        else:
            temporary.rename(path)
        fsync_parent(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling file to write; on success it is fsynced and renamed to `path`.

    The sibling keeps the suffix of `path`, because many writers infer the format from it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, suffix=path.suffix, dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        with disk_full_as_user_error(path):
            yield temporary
            fsync_tree(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
        fsync_parent(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def file_lock(path: Path, message: str) -> Iterator[None]:
    """Context in which this process alone holds the lock on the file `path`. Raises UserError with the text `message`
    if another process holds it. The file stays; the kernel releases the lock however the process ends."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(message) from None
        yield


def fsync_parent(path: Path) -> None:
    """Flush the parent directory of `path`, which makes a rename to `path` durable."""
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporaries(directory: Path, name: str = "") -> None:
    """Remove the temporary files that an interrupted `atomic_directory` or `atomic_file` left in `directory`.

    With `name`, remove only leftovers of the directory with that name. A directory that `atomic_directory` had moved
    away but not yet replaced is restored. Only safe while no other process writes there.
    """
    for leftover in directory.glob(f"{TEMPORARY_PREFIX}*"):
        target = leftover.name.removeprefix(RETIRED_PREFIX).removeprefix(TEMPORARY_PREFIX).rpartition("-")[0]
        if name and target != name:
            continue
        replaced = directory / target
        if leftover.name.startswith(RETIRED_PREFIX) and (leftover / "old").is_dir() and not replaced.exists():
            (leftover / "old").rename(replaced)
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; raises UserError naming the file when it is missing or not JSON."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"There is no file {path}.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}).") from error
