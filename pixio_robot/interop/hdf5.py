"""Opens HDF5 files of strangers, and reads their datasets."""

# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
# h5py's low-level modules are compiled, and pyright cannot read them.

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import h5py
import numpy as np

from pixio_robot.errors import UserError

_SUFFIXES = (".hdf5", ".h5")
_THIS_FILE = "."
"""How a virtual data set names the file that it is in."""


def list_hdf5_files(path: Path, *, recursive: bool = False) -> list[Path]:
    """The file itself, or the HDF5 files of a folder, without hidden ones (macOS leaves some).

    Raises PermissionError for a folder that may not be read: `glob` would pass over it, and its files would be missing.
    """
    if path.is_file():
        return [path] if path.suffix in _SUFFIXES else []
    files: list[Path] = []
    for folder, subfolders, names in path.walk(on_error=_raise) if path.is_dir() else ():
        if not recursive:
            subfolders.clear()
        files += [folder / name for name in names if Path(name).suffix in _SUFFIXES and not name.startswith(".")]
    return files


def _raise(error: OSError) -> NoReturn:
    raise error


def open_hdf5(path: Path) -> h5py.File:
    """Open a file for reading.

    Raises UserError if it is not HDF5, or if any part of it is kept in another file: a link, a virtual data set or
    external storage may name any file of this machine, which would be read as if it were data of this one.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise UserError(f"{path} cannot be opened as HDF5: {error}.") from error
    try:
        elsewhere = file.id.links.visit(lambda name, info: _other_file(file, name, info.type), info=True)
        if elsewhere is not None:
            raise UserError(
                f"{path} is refused: its {elsewhere}, and would be read from there. Copy those data into the file."
            )
    except (OSError, RuntimeError, KeyError) as error:
        file.close()
        raise UserError(f"{path} cannot be opened as HDF5: {error}.") from error
    except BaseException:
        file.close()
        raise
    return file


def get_dataset(group: h5py.Group, key: str, path: Path) -> h5py.Dataset:
    """A dataset of the group or below it. Raises UserError naming the file and what its group contains instead."""
    dataset = group.get(key)
    if not isinstance(dataset, h5py.Dataset):
        parent = group.get(key.rpartition("/")[0] or ".")
        there = sorted(parent) if isinstance(parent, h5py.Group) else []
        raise UserError(f"{path}: {group.name} has no dataset {key}, only {', '.join(there) or 'nothing'}.")
    return dataset


def read_dataset(group: h5py.Group, key: str, path: Path) -> np.ndarray:
    """A whole dataset. Raises UserError if it cannot be read."""
    dataset = get_dataset(group, key, path)
    try:
        return dataset[()]
    except (OSError, MemoryError) as error:
        raise UserError(f"{path}: {dataset.name} cannot be read ({error}).") from error


def holds_images(dataset: h5py.Dataset) -> bool:
    """Whether these are images in colour: uint8 (n, h, w, 3)."""
    return dataset.dtype == np.uint8 and dataset.ndim == 4 and dataset.shape[3] == 3


def _other_file(file: h5py.File, name: bytes, kind: int) -> str | None:
    """Which other file a part of this one is kept in, as the end of a sentence; None if in none."""
    text = name.decode(errors="replace")
    if kind == h5py.h5l.TYPE_EXTERNAL:
        return f"{text} is a link into {file.get(name, getlink=True).filename}"
    # Files have ten thousands of parts, for which h5py's own objects take several times as long.
    part = h5py.h5o.open(file.id, name) if kind == h5py.h5l.TYPE_HARD else None
    if not isinstance(part, h5py.h5d.DatasetID):
        return None
    creation = part.get_create_plist()
    others = [os.fsdecode(creation.get_external(number)[0]) for number in range(creation.get_external_count())]
    if creation.get_layout() == h5py.h5d.VIRTUAL:
        sources = (creation.get_virtual_filename(number) for number in range(creation.get_virtual_count()))
        others += [source for source in sources if source != _THIS_FILE]
    return f"{text} is kept in {others[0]}" if others else None
