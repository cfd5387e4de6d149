"""Atomic file and directory writes: a crash never leaves a partial file in place of a complete one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import fnmatch
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pixio_robot.errors import UserError

TEMPORARY_PREFIX = ".tmp-"
_REPLACED = ".replaced"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_FLUSHED_AT_ONCE, _LISTED_AT_ONCE = 16, 1024


def fsync_tree(path: Path) -> None:
    """Flush a file, or a directory with everything below it, to the disk."""
    if not path.is_dir():
        _fsync(path)
        return
    # Many at once, for which a file system writes its journal once.
    with ThreadPoolExecutor(_FLUSHED_AT_ONCE) as pool:
        for some in itertools.batched(itertools.chain(path.rglob("*"), [path]), _LISTED_AT_ONCE):
            for _ in pool.map(_fsync, some):
                pass  # raises what the thread raised


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_disk_full(error: BaseException) -> bool:
    """Whether the error of whichever library means that the disk, or the user's quota, is full.

    torch.save raises a RuntimeError while it handles the system's error. The others contain its words (safetensors, and
    torch.distributed.checkpoint, whose error is not an Exception).
    """
    cause = error.__context__ if isinstance(error, RuntimeError) else error
    if isinstance(cause, OSError) and cause.errno in _DISK_FULL:
        return True
    return any(os.strerror(number) in str(error) for number in _DISK_FULL)


@contextlib.contextmanager
def disk_full_as_user_error(path: Path) -> Iterator[None]:
    """Turn a full disk into a UserError while `path` is written; the caller must discard the partial output."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, UserError) or not is_disk_full(error):
            raise
        raise UserError(
            f"No space left on the disk while writing {path}. The incomplete output was removed; "
            "free some space and run the same command again."
        ) from error


@contextlib.contextmanager
def staging_directory(directory: Path, name: str) -> Iterator[Path]:
    """Yield an empty, hidden directory inside `directory` in which to build `name`; it is removed afterwards.

    It is locked meanwhile, which, unlike a process id, means something between containers too, and the kernel releases
    the lock however the process ends: what is in an unlocked directory was left by a kill, and the next one to build
    `name` clears it.
    """
    staging, lock = _lock_staging_directory(directory, f"{TEMPORARY_PREFIX}{name[:40]}")
    try:
        _restore_replaced(staging)
        for leftover in staging.iterdir():
            _remove(leftover)
        yield staging
    finally:
        _restore_replaced(staging)
        _remove(staging)
        os.close(lock)


def _lock_staging_directory(directory: Path, name: str) -> tuple[Path, int]:
    """Lock a new `name-0` in `directory`, or one that nobody has locked; `name-1` and so on while others hold those."""
    numbers = itertools.count()
    while True:
        staging = directory / f"{name}-{next(numbers)}"
        try:
            staging.mkdir(0o700)
            is_new = True
        except FileExistsError:
            is_new = False
        # Another process has just removed it, or it is a stranger's.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            lock = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            if _lock(lock, staging, without_locks=is_new):
                return staging, lock
            os.close(lock)


def _lock(descriptor: int, path: Path, without_locks: bool) -> bool:
    """Lock an open file or directory: whether this process holds the lock, and what is open is still there. On a file
    system without locks, the answer is `without_locks`."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except (BlockingIOError, FileNotFoundError):
        return False
    except OSError:
        return without_locks


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary directory to fill; on success it is fsynced and takes the place of `path`.

    An existing `path` is replaced; of a symbolic link, what it points to. If a kill comes between the two renames that
    this takes, the next writer of `path` brings it back.
    """
    path = path.resolve() if path.is_symlink() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    with disk_full_as_user_error(path), staging_directory(path.parent, path.name) as staging:
        built, replaced = staging / path.name, staging / _REPLACED / path.name
        built.mkdir()
        yield built
        fsync_tree(built)
        if path.exists():
            replaced.parent.mkdir()
            path.rename(replaced)
        built.rename(path)
        fsync_parent(path)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path of the same name, from which many writers infer the format; on success, the file that was
    written there is fsynced and takes the place of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with disk_full_as_user_error(path), staging_directory(path.parent, path.name) as staging:
        yield staging / path.name
        fsync_tree(staging / path.name)
        (staging / path.name).replace(path)
        fsync_parent(path)


def _restore_replaced(staging: Path) -> None:
    """Move back what `atomic_directory` had moved away and not replaced yet."""
    for replaced in (staging / _REPLACED).glob("*"):
        if not (staging.parent / replaced.name).exists():
            replaced.rename(staging.parent / replaced.name)


def remove_temporaries(directory: Path) -> None:
    """Remove what interrupted writers left in `directory`. Only safe while no other process writes there."""
    for leftover in directory.glob(f"{TEMPORARY_PREFIX}*"):
        _restore_replaced(leftover)
        _remove(leftover)


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
    """Context in which this process alone holds the lock on the file `path`, which is removed at the end. Raises
    UserError with the text `message` if another process holds it. The kernel releases the lock however the process
    ends."""
    with path.open("w") as lock:
        if not _lock(lock.fileno(), path, without_locks=True):
            raise UserError(message)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def find_files(directory: Path, pattern: str) -> list[Path]:
    """The files below `directory` whose name matches, sorted. Zarr stores are passed over: one of demonstrations has
    tens of thousands of files, none of them the result of a command. So are staging directories, whose files may be
    half written."""
    found = []
    for folder, folders, names in os.walk(directory):
        found += [Path(folder, name) for name in fnmatch.filter(names, pattern)]
        is_store = "zarr.json" in names
        folders[:] = [name for name in folders if not (is_store or name.startswith(TEMPORARY_PREFIX))]
    return sorted(found)


def fsync_parent(path: Path) -> None:
    """Flush the parent directory of `path`, which makes a rename to `path` durable."""
    _fsync(path.parent)


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
