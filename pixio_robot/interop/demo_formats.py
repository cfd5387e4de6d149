"""Demonstrations in the formats of other tools: one module a format, all used in the same way.

A module is imported only when its format is chosen or looked for, and imports what is heavy inside its functions.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

from pixio_robot.data.demo_commit import publish, workplace
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.files import disk_full_is_a_user_error

MODULES = {
    "lerobot": "pixio_robot.interop.lerobot",
    "robomimic": "pixio_robot.interop.robomimic",
    "diffusion_policy": "pixio_robot.interop.diffusion_policy",
    "aloha": "pixio_robot.interop.aloha",
    "folder": "pixio_robot.interop.plain_folder",
}
"""Format -> its module, which is an `ImportFormat`, and a `DemoFormat` where it is one of EXPORTS."""
EXPORTS = tuple(name for name in MODULES if name != "aloha")
"""ALOHA's files have nowhere to put what a DemoSpec says; what reads them reads LeRobot's as well."""
_HUB = re.compile(r"[\w.-]+/[\w.-]+")
"""What the Hugging Face hub calls a data set: owner/name."""
_SUFFIXES = (".zarr", ".zip", ".hdf5", ".h5")
_SHOWN = 8
"""Names in an error."""


@dataclass(frozen=True)
class Outcome:
    """What was imported or exported; `notes` has one sentence for every step that lost something."""

    episodes: int
    frames: int
    notes: list[str] = field(default_factory=list)


class ImportFormat(Protocol):
    """What a module offers. `ImportConfig` is a dataclass of its own settings.

    Import and export hold one episode in RAM at a time, show progress, refuse an `out` that exists, and leave nothing
    half-written. They raise UserError for input that does not fit, naming the file and key, and what would be right.
    """

    NAME: str
    SUMMARY: str
    ImportConfig: type[Any]

    def recognises(self, path: Path) -> bool:
        """Whether `path` looks like this format; quick, and never an error."""
        ...

    def import_demos(self, source: Path, out: Path, config: Any) -> Outcome:
        """Make a demonstration store at `out` of the data set at `source`."""
        ...


class DemoFormat(ImportFormat, Protocol):
    """The same, both ways."""

    ExportConfig: type[Any]

    def export_demos(self, store: Path, out: Path, config: Any) -> Outcome:
        """Write the demonstration store at `store` to `out`."""
        ...


def import_format(name: str) -> ImportFormat:
    """Raises UserError for a name that is none of MODULES."""
    if name not in MODULES:
        raise unknown_name("format of demonstrations", name, MODULES)
    return cast(ImportFormat, importlib.import_module(MODULES[name]))


def export_format(name: str) -> DemoFormat:
    """Raises UserError for a name that is none of EXPORTS."""
    if name in MODULES and name not in EXPORTS:
        raise UserError(f"format={name} is imported only; there are {', '.join(EXPORTS)} to export to.")
    return cast(DemoFormat, import_format(name))


def recognised_format(path: Path) -> ImportFormat:
    """The format of what lies at `path`. Raises UserError when it is none of them, or may be several."""
    if not path.exists():
        raise nothing_at(path)
    found = [name for name in MODULES if import_format(name).recognises(path)]
    if len(found) != 1:
        damaged = ", or damaged" if path.is_file() else ""
        what = f"may be {' or '.join(found)}" if found else f"is in none of the known formats{damaged}"
        raise UserError(f"{path} {what}; say which with format={'|'.join(found or MODULES)}.")
    return import_format(found[0])


def nothing_at(path: Path) -> UserError:
    """An error for a source that is not there: what is there and called nearly so; for what can only be a name of the
    Hugging Face hub, how to get it."""
    for place in (path, *path.parents):
        if place.is_symlink() and not place.exists():
            return UserError(f"{place} is a link to {place.readlink()}, where there is nothing.")
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    missing = path.absolute().relative_to(folder).parts[0]
    there = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    closest = difflib.get_close_matches(missing, there, n=1, cutoff=0.6)
    if closest:
        return UserError(f"There is nothing at {path}. Did you mean {closest[0]!r} in {folder}?")
    if _HUB.fullmatch(str(path)) and path.suffix not in _SUFFIXES and missing == path.parts[0]:
        return UserError(
            f"There is nothing at {path}. A data set of the Hugging Face hub is downloaded first: "
            f"hf download --repo-type dataset {path} --local-dir {path.name}."
        )
    more = f" and {len(there) - _SHOWN} more" if len(there) > _SHOWN else ""
    return UserError(
        f"There is nothing at {path}. In {folder} there is {', '.join(there[:_SHOWN]) or 'nothing'}{more}."
    )


@contextlib.contextmanager
def new_path(out: Path) -> Iterator[Path]:
    """Yield a path where nothing is yet, to write the file or folder `out` at; on success it is renamed to `out`.

    What writers that were killed left beside it is removed. Raises UserError when `out` exists or the disk is full.
    """
    if out.exists():
        raise UserError(f"{out} exists already; choose another out=.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with disk_full_is_a_user_error(out), workplace(out.parent) as temporary:
        built = temporary / out.name
        yield built
        # Renaming a file would replace one that another process made meanwhile.
        if out.exists() or not publish(built, out):
            raise UserError(f"{out} was made by another process meanwhile; choose another out=.")
