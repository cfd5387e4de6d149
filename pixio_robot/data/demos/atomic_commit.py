"""Committing what was built in a staging directory by renaming it; nothing is ever replaced."""

from __future__ import annotations

import errno
from pathlib import Path

from pixio_robot.errors import UserError
from pixio_robot.files import fsync_parent, fsync_tree

STAGING = "demos"
"""The name of staging directories, the same for all: any writer beside a killed one clears what it left."""


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


def commit_by_rename(built: Path, target: Path, *, flush: bool = True) -> bool:
    """Rename `built` to `target`, flushed to the disk unless `flush` is False. If `target` already exists, do nothing
    and return False."""
    if flush:
        fsync_tree(built)
    try:
        # Renaming a directory onto a non-empty one fails, so nothing is ever replaced.
        built.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    if flush:
        fsync_parent(target)
    return True
