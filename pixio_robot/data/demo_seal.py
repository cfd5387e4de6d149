"""Checksums of what stands in `zarr.json` files, so that a flipped bit there is found as one in an array is.

The attributes of the root and of every episode carry their own under CHECKSUM, which other readers pass over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import google_crc32c

CHECKSUM = "crc32c"
NODE = "zarr.json"


def sealed(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """`attributes` with their checksum."""
    bare = {key: value for key, value in attributes.items() if key != CHECKSUM}
    return bare | {CHECKSUM: _checksum(json.dumps(bare, sort_keys=True).encode())}


def unsealed(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """`attributes` without their checksum. Raises ValueError when it does not fit; earlier versions wrote none."""
    bare = dict(attributes)
    found = bare.pop(CHECKSUM, None)
    if found is not None and found != sealed(bare)[CHECKSUM]:
        raise ValueError("the checksum of its attributes does not fit")
    return bare


def node_checksums(directory: Path) -> dict[str, str]:
    """Of the `zarr.json` of everything below `directory`, itself excepted, by the relative path of its folder."""
    nodes = sorted(path for path in directory.rglob(NODE) if path.parent != directory)
    return {path.parent.relative_to(directory).as_posix(): _checksum(path.read_bytes()) for path in nodes}


def _checksum(content: bytes) -> str:
    return f"{google_crc32c.value(content):08x}"
