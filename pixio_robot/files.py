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
    except (OSError, RuntimeError) as error:
        # torch.save raises an error of its own while it handles the system's.
        cause = error if isinstance(error, OSError) else error.__context__
        if not (isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)):
            raise
        raise UserError(
            f"No space left on the disk while writing {path}. The incomplete output was removed; "
            "free some space and run the same command again."
        ) from error


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` to fill; on success it is fsynced and takes the place of `path`.

    An existing `path` is replaced; of a symbolic link, what it points to. On any exception the temporary directory is
    removed; after a kill, the next writer of `path` removes it.
    """
    path = path.resolve() if path.is_symlink() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path.with_name(f"{RETIRED_PREFIX}{path.name}{_FIRST}"), restore=path)
    with _temporary_sibling(path, f"{TEMPORARY_PREFIX}{path.name}", is_directory=True) as temporary:
        with disk_full_as_user_error(path):
            temporary.chmod(0o755)
            yield temporary
            fsync_tree(temporary)
        if not path.exists():
            temporary.rename(path)
        else:
            with _temporary_sibling(path, f"{RETIRED_PREFIX}{path.name}", is_directory=True) as retired:
                path.rename(retired / "old")
                try:
                    temporary.rename(path)
                except BaseException:
                    (retired / "old").rename(path)
                    raise
                _remove(retired)
        fsync_parent(path)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling file to write; on success it is fsynced and renamed to `path`.

    The sibling keeps the suffix of `path`, because many writers infer the format from it. On any exception it is
    removed; after a kill, the next writer of `path` removes it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Shortened, because the name of `path` may be as long as names can be.
    name = f"{TEMPORARY_PREFIX}{path.stem[:40]}"
    with _temporary_sibling(path, name, is_directory=False) as temporary:
        with disk_full_as_user_error(path):
            yield temporary
            fsync_tree(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
        fsync_parent(path)


_FIRST = "-0"
"""End of the name of a temporary, unless another process is writing to the same path."""


@contextlib.contextmanager
def _temporary_sibling(path: Path, name: str, *, is_directory: bool) -> Iterator[Path]:
    """Yield a new file or directory beside `path`, which the caller renames or removes; on any exception it is removed.

    It is locked meanwhile, and the kernel releases the lock however the process ends: an unlocked one of the same name
    was left by a kill, and is removed first.
    """
    suffix = "" if is_directory else path.suffix
    _remove_abandoned(path.with_name(f"{name}{_FIRST}{suffix}"))
    temporary, lock = _create_locked(path, name, suffix, is_directory)
    try:
        yield temporary
    except BaseException:
        _remove(temporary)
        raise
    finally:
        os.close(lock)


def _create_locked(path: Path, name: str, suffix: str, is_directory: bool) -> tuple[Path, int]:
    while True:
        temporary = path.with_name(f"{name}{_FIRST}{suffix}")
        try:
            temporary.mkdir(0o700) if is_directory else temporary.touch(0o600, exist_ok=False)
        except FileExistsError:
            if is_directory:
                temporary = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=path.parent))
            else:
                descriptor, random = tempfile.mkstemp(prefix=f"{name}-", suffix=suffix, dir=path.parent)
                os.close(descriptor)
                temporary = Path(random)
        if (lock := _lock(temporary, needed=False)) is not None:
            return temporary, lock
        # Another writer removed it as abandoned before it was locked.


def _lock(path: Path, *, needed: bool) -> int | None:
    """Lock what is at `path`; None if it is gone, or another process holds the lock. Unless `needed`, a file system
    without locks is accepted too; what a kill leaves there stays."""
    with contextlib.ExitStack() as stack, contextlib.suppress(FileNotFoundError, BlockingIOError):
        descriptor = os.open(path, os.O_RDONLY)
        stack.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if needed or isinstance(error, BlockingIOError):
                raise
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            stack.pop_all()
            return descriptor
    return None


def _remove_abandoned(temporary: Path, restore: Path | None = None) -> None:
    """Remove a temporary that a killed process left; one of a replaced directory is moved back to `restore` if nothing
    is there."""
    with contextlib.ExitStack() as stack, contextlib.suppress(OSError):  # it may be another user's
        if (lock := _lock(temporary, needed=True)) is None:
            return
        stack.callback(os.close, lock)
        if restore is not None and not restore.exists() and (temporary / "old").exists():
            (temporary / "old").rename(restore)
        _remove(temporary)


def stays_below(relative: Path | str) -> bool:
    """Whether a path that a stranger's data name is one below their folder; links there are not looked at."""
    return not Path(relative).is_absolute() and ".." not in Path(relative).parts


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


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
        _remove(leftover)


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
