"""What an episode's group says of it in its attributes: length, outcome, and how its arrays are described."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import zarr

from pixio_robot.data.demo_seal import NODE, node_checksums, sealed, unsealed
from pixio_robot.errors import UserError


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """`nodes` holds the checksum of every array's `zarr.json`; what earlier versions wrote has none."""

    length: int
    success: bool
    seed: int
    info: dict[str, Any]
    nodes: dict[str, str] = dataclasses.field(default_factory=dict)


def read_header(path: Path) -> Header | None:
    """Of the episode in `path`; None where there is none. Raises UserError for a zarr.json that is damaged."""
    try:
        header = Header(**unsealed(json.loads((path / NODE).read_text())["attributes"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        if not path.exists():
            return None
        raise UserError(f"{path / NODE} is damaged ({error!r}): restore it from a copy.") from error
    if not (isinstance(header.length, int) and header.length > 0):
        raise UserError(f"{path / NODE} is damaged: its length is {header.length!r}.")
    return header


def write_header(group: zarr.Group, path: Path, header: Header) -> None:
    """After the arrays of `group`, which lies at `path`."""
    group.attrs.put(sealed(dataclasses.asdict(dataclasses.replace(header, nodes=node_checksums(path)))))
