"""Opens HDF5 files of strangers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py

from pixio_robot.errors import UserError

_THIS_FILE = "."
"""How a virtual data set names the file that it is in."""


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
        elsewhere = file.visititems_links(lambda name, link: _other_file(file, name, link))
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


def _other_file(file: h5py.File, name: str, link: Any) -> str | None:
    """Which other file a part of this one is kept in, as the end of a sentence; None if in none."""
    if isinstance(link, h5py.ExternalLink):
        return f"{name} is a link into {link.filename}"
    item = file[name] if isinstance(link, h5py.HardLink) else None
    if not isinstance(item, h5py.Dataset):
        return None
    others = [other for other, _, _ in item.external or ()]
    if item.is_virtual:
        others += [source.file_name for source in item.virtual_sources() if source.file_name != _THIS_FILE]
    return f"{name} is kept in {others[0]}" if others else None
