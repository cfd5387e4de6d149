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

LOOK_SECONDS = 1.0
GONE = "gone"


@contextlib.contextmanager
def replaced(target: Path, stamp: Path, begun: Callable[[Path], bool] = Path.exists) -> Iterator[None]:
    """Context in which the result at `target` and its `stamp` are moved aside. They are deleted about a second after a
    new result has `begun` at `target`, so that two copies do not occupy the disk for long; if none has begun when the
    block ends, by any error or signal, they are restored. After a kill, `settled` does the same.

    `begun`: whether there is something at a path that is worth keeping."""
    if target.is_symlink():
        raise UserError(
            f"{target} is a symbolic link, which overwrite=true does not replace: remove it, or choose another out=."
        )
    aside = _aside(target)
    aside.mkdir()
    target.rename(aside / target.name)
    stamp.rename(aside / stamp.name)
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_SECONDS):
            if begun(target):
                _remove(aside, target)
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        settled(target, stamp, begun)


def settled(target: Path, stamp: Path, begun: Callable[[Path], bool] = Path.exists) -> None:
    """Finish an interrupted replacement: restore the earlier result if nothing new has `begun` at `target`, else delete
    it."""
    aside = _aside(target)
    if (aside / target.name).exists() and not begun(target):
        shutil.rmtree(target, ignore_errors=True)
        if (aside / stamp.name).exists():
            (aside / stamp.name).replace(stamp)
        (aside / target.name).rename(target)
    _remove(aside, target)


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.replaced")


def _remove(aside: Path, target: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        # Renamed first, so that a partially deleted result is never restored.
        (aside / target.name).rename(aside / GONE)
    shutil.rmtree(aside, ignore_errors=True)
