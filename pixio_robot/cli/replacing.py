"""A result that is to be made anew steps aside, until there is something new in its place.

.demos.replaced/demos              what lay at `demos`
.demos.replaced/demos.stage.json   and its stamp
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from pixio_robot.errors import UserError

LOOK_SECONDS = 1.0
GONE = "gone"


@contextlib.contextmanager
def replaced(target: Path, stamp: Path) -> Iterator[None]:
    """Inside, what was at `target` and its `stamp` are aside, beside it. They are removed about a second after
    something new has appeared at `target`, so that two copies do not lie on the disk for long; where nothing has when
    the block is left, by whatever error or signal, they are put back. After a kill `settled` does either."""
    if target.is_symlink():
        raise UserError(f"{target} is a link, which overwrite=true leaves alone: remove it, or choose another out=.")
    aside = _aside(target)
    aside.mkdir()
    target.rename(aside / target.name)
    stamp.rename(aside / stamp.name)
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_SECONDS):
            if target.exists():
                _remove(aside, target)
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        settled(target, stamp)


def settled(target: Path, stamp: Path) -> None:
    """What was aside is put back where there is nothing new at `target`, and removed where there is."""
    aside = _aside(target)
    if not target.exists() and (aside / target.name).exists():
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
