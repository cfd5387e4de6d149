"""The header of an episode, stored in its group's attributes: length, outcome, and checksums of array metadata."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import zarr

from pixio_robot.data.demos.metadata_checksums import (
    METADATA_FILE,
    add_checksum,
    metadata_checksums,
    verify_and_strip_checksum,
)
from pixio_robot.errors import UserError


@dataclasses.dataclass(frozen=True, slots=True)
class EpisodeHeader:
    """`nodes`: the checksum of every array's `zarr.json`; empty in episodes written by earlier versions."""

    length: int
    success: bool
    seed: int
    info: dict[str, Any]
    nodes: dict[str, str] = dataclasses.field(default_factory=dict)


def read_header(path: Path) -> EpisodeHeader | None:
    """The header of the episode in `path`; None if there is no episode. Raises UserError for a damaged zarr.json."""
    try:
        header = EpisodeHeader(
            **verify_and_strip_checksum(json.loads((path / METADATA_FILE).read_text())["attributes"])
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        if not path.exists():
            return None
        raise UserError(f"{path / METADATA_FILE} is damaged ({error!r}): restore it from a copy.") from error
    if not (isinstance(header.length, int) and header.length > 0):
        raise UserError(f"{path / METADATA_FILE} is damaged: its length is {header.length!r}.")
    return header


def write_header(group: zarr.Group, path: Path, header: EpisodeHeader) -> None:
    """Write the header of `group` at `path`. Call this after writing the arrays."""
    group.attrs.put(add_checksum(dataclasses.asdict(dataclasses.replace(header, nodes=metadata_checksums(path)))))
