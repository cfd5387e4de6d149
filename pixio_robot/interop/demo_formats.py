"""Demonstrations in the formats of other tools: one module per format, all with the same interface.

A module is imported only when its format is selected or detected, and does its heavy imports inside functions.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

from pixio_robot.data.demos.atomic_commit import STAGING, check_new, commit_by_rename
from pixio_robot.data.demos.editing.rewrite import NewStore, write_stores
from pixio_robot.data.demos.root_metadata import read_root_attributes
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.files import disk_full_as_user_error, staging_directory
from pixio_robot.types import DemoSpec, Episode

MODULES = {
    "lerobot": "pixio_robot.interop.lerobot",
    "robomimic": "pixio_robot.interop.robomimic",
    "libero": "pixio_robot.interop.libero",
    "diffusion_policy": "pixio_robot.interop.diffusion_policy",
    "aloha": "pixio_robot.interop.aloha",
    "maniskill": "pixio_robot.interop.maniskill",
    "cortexbench": "pixio_robot.interop.cortexbench",
    "folder": "pixio_robot.interop.plain_folder",
}
"""Format -> its module, which implements `ImportFormat`, or `DemoFormat` if it is in EXPORTS."""
EXPORTS = tuple(name for name in MODULES if name not in ("aloha", "libero", "maniskill", "cortexbench"))
"""No export to the others: their files have no place for a DemoSpec, and tools that read ALOHA's or LIBERO's read
LeRobot's or robomimic's as well."""
_HUB = re.compile(r"[\w.-]+/[\w.-]+")
"""The name of a dataset on the Hugging Face Hub: owner/name."""
_SUFFIXES = (".zarr", ".zip", ".hdf5", ".h5")
_SEARCHED = 50
"""Maximum number of entries of an unknown folder that are tried."""
_LISTED_TASKS = 3
_SHOWN = 8
"""Maximum number of names listed in an error."""


@dataclass(frozen=True)
class Conversion:
    """What was imported or exported; `notes` has one line for every loss of information."""

    episodes: int
    frames: int
    notes: list[str] = field(default_factory=list)


class ImportFormat(Protocol):
    """Interface of a format module. `ImportConfig` is a dataclass with the format's own settings.

    Import and export hold one episode in RAM at a time, show progress, refuse an existing `out`, and leave nothing
    half-written. They raise UserError for invalid input, naming the file and key and what was expected.
    """

    NAME: str
    SUMMARY: str
    ImportConfig: type[Any]

    def recognises(self, path: Path) -> bool:
        """Whether `path` looks like this format; quick, and never raises."""
        ...

    def import_demos(self, source: Path, out: Path, config: Any) -> Conversion:
        """Convert the dataset at `source` to a demonstration store at `out`."""
        ...


class DemoFormat(ImportFormat, Protocol):
    """Interface of a format module that can also export."""

    ExportConfig: type[Any]

    def export_demos(self, store: Path, out: Path, config: Any) -> Conversion:
        """Write the demonstration store at `store` to `out`."""
        ...


def join_task_names(tasks: Iterable[str], dataset: str) -> str:
    """The task in the DemoSpec of a dataset with these tasks: their names, or how many there are."""
    names = list(dict.fromkeys(tasks))
    return " + ".join(names) if len(names) <= _LISTED_TASKS else f"{len(names)} tasks of {dataset}"


def multi_task_note(count: int) -> str:
    return f"{count} tasks: each episode's info stores its own, on which `train` conditions the policy"


def load_import_format(name: str) -> ImportFormat:
    """The module of a format. Raises UserError for a name that is not in MODULES."""
    if name not in MODULES:
        raise unknown_name("format of demonstrations", name, MODULES)
    return cast(ImportFormat, importlib.import_module(MODULES[name]))


def load_export_format(name: str) -> DemoFormat:
    """The module of a format. Raises UserError for a name that is not in EXPORTS."""
    if name in MODULES and name not in EXPORTS:
        raise UserError(f"format={name} is import-only; export supports {', '.join(EXPORTS)}.")
    return cast(DemoFormat, load_import_format(name))


def detect_format(path: Path) -> ImportFormat:
    """Detect the format of `path`. Raises UserError if no format or more than one matches."""
    if not path.exists():
        raise missing_path_error(path)
    matching = [name for name in MODULES if load_import_format(name).recognises(path)]
    if len(matching) != 1:
        damaged = ", or damaged" if path.is_file() else ""
        what = f"may be {' or '.join(matching)}" if matching else f"is not in a known format{damaged}"
        if not matching and _is_store(path):
            raise UserError(f"{path} is a demonstration store already, and needs no import: `train data={path}`.")
        if not matching and (inside := _find_inside(path)):
            raise UserError(f"{path} {what}, but {inside} is: import that.")
        raise UserError(f"{path} {what}; choose one with format={'|'.join(matching or MODULES)}.")
    return load_import_format(matching[0])


def _is_store(path: Path) -> bool:
    try:
        return bool(read_root_attributes(path))
    except UserError:
        return False


def _find_inside(path: Path) -> Path | None:
    """What in a folder is in a known format, as in a download or a folder of one recording each."""
    entries = sorted(path.iterdir())[:_SEARCHED] if path.is_dir() else []
    formats = [load_import_format(name) for name in MODULES]
    return next((entry for entry in entries if any(one.recognises(entry) for one in formats)), None)


def missing_path_error(path: Path) -> UserError:
    """The error for a missing source: suggests a similar name, or how to download what can only be the name of a
    dataset on the Hugging Face Hub."""
    for ancestor in (path, *path.parents):
        if ancestor.is_symlink() and not ancestor.exists():
            return UserError(f"{ancestor} is a symbolic link to {ancestor.readlink()}, which does not exist.")
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    missing = path.absolute().relative_to(folder).parts[0]
    siblings = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    closest = difflib.get_close_matches(missing, siblings, n=1, cutoff=0.6)
    if closest:
        return UserError(f"{path} does not exist. Did you mean {closest[0]!r} in {folder}?")
    if _HUB.fullmatch(str(path)) and path.suffix not in _SUFFIXES and missing == path.parts[0]:
        return UserError(
            f"{path} does not exist. To import a dataset from the Hugging Face Hub, download it first: "
            f"hf download --repo-type dataset {path} --local-dir {path.name}."
        )
    more = f" and {len(siblings) - _SHOWN} more" if len(siblings) > _SHOWN else ""
    return UserError(f"{path} does not exist. {folder} contains {', '.join(siblings[:_SHOWN]) or 'nothing'}{more}.")


class EpisodeReader(Protocol):
    """Reads the episodes of one dataset, and keeps track of what is lost in conversion."""

    spec: DemoSpec

    def episodes(self) -> Iterator[Episode]: ...

    def notes(self) -> list[str]:
        """What was lost, once all episodes have been read."""
        ...


def import_episodes(reader: EpisodeReader, count: int, out: Path) -> Conversion:
    """Write the reader's `count` episodes to a new store at `out`, or nothing if one of them cannot be read."""
    write_stores(out, {"": NewStore(spec=reader.spec, count=count, episodes=reader.episodes())})
    frames = int(DemoStore.open(out, ram_bytes=0).lengths.sum())
    return Conversion(episodes=count, frames=frames, notes=reader.notes())


@contextlib.contextmanager
def write_atomically(out: Path) -> Iterator[Path]:
    """Yield a temporary path at which to write the file or folder `out`; on success it is renamed to `out`.

    Leftovers of killed writers beside it are removed. Raises UserError as `check_new` does, or if the disk is full.
    """
    check_new(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with disk_full_as_user_error(out), staging_directory(out.parent, STAGING) as temporary:
        built = temporary / out.name
        yield built
        # Renaming a file would overwrite one that another process created in the meantime.
        if out.exists() or not commit_by_rename(built, out):
            raise UserError(f"{out} was created by another process in the meantime; choose another out=.")
