"""A result that is to be made anew steps aside, until there is something new in its place.

.demos.replaced/demos              what lay at `demos`
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
    """Inside, what was at `target` and its `stamp` are aside, beside it. They are removed about a second after
    something new has `begun` at `target`, so that two copies do not lie on the disk for long; where nothing has when
    the block is left, by whatever error or signal, they are put back. After a kill `settled` does either.

    `begun`: whether what is at a path, if anything, is worth keeping."""
    if target.is_symlink():
        raise UserError(f"{target} is a link, which overwrite=true leaves alone: remove it, or choose another out=.")
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
    """What was aside is put back where nothing new has `begun` at `target`, and removed where it has."""
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
        # What has lost some of its files already is never put back.
        (aside / target.name).rename(aside / GONE)
    shutil.rmtree(aside, ignore_errors=True)
