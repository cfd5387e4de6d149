"""Move an existing result aside while it is remade, and restore it if nothing new takes its place.

.demos.replaced/demos              the earlier result at `demos`
.demos.replaced/demos.stage.json   and its stamp
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from pixio_robot.errors import UserError

POLL_SECONDS = 1.0
TRASH = "gone"


@contextlib.contextmanager
def replacing_result(target: Path, stamp: Path, has_begun: Callable[[Path], bool] = Path.exists) -> Iterator[None]:
    """Context in which the result at `target` and its `stamp` are moved aside. They are deleted about a second after a
    new result has begun at `target`, so that two copies do not occupy the disk for long; if none has begun when the
    block ends, by any error or signal, they are restored. After a kill, `finish_replacement` does the same.

    `has_begun`: whether there is something at a path that is worth keeping."""
    if target.is_symlink():
        raise UserError(
            f"{target} is a symbolic link, which overwrite=true does not replace: remove it, or choose another out=."
        )
    backup = _backup_directory(target)
    backup.mkdir()
    target.rename(backup / target.name)
    stamp.rename(backup / stamp.name)
    done = threading.Event()

    def watch() -> None:
        while not done.wait(POLL_SECONDS):
            if has_begun(target):
                _delete_backup(backup, target)
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        finish_replacement(target, stamp, has_begun)


def finish_replacement(target: Path, stamp: Path, has_begun: Callable[[Path], bool] = Path.exists) -> None:
    """Finish an interrupted replacement: restore the earlier result if nothing new has begun at `target`, else delete
    it."""
    backup = _backup_directory(target)
    if (backup / target.name).exists() and not has_begun(target):
        shutil.rmtree(target, ignore_errors=True)
        if (backup / stamp.name).exists():
            (backup / stamp.name).replace(stamp)
        (backup / target.name).rename(target)
    _delete_backup(backup, target)


def _backup_directory(target: Path) -> Path:
    return target.with_name(f".{target.name}.replaced")


def _delete_backup(backup: Path, target: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        # Renamed first, so that a partially deleted result is never restored.
        (backup / target.name).rename(backup / TRASH)
    shutil.rmtree(backup, ignore_errors=True)
