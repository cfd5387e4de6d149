"""Checksums of `zarr.json` files, so that corruption is detected there as it is in arrays.

The attributes of the root and of every episode include their checksum under CHECKSUM, which other readers ignore.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import google_crc32c

CHECKSUM = "crc32c"
METADATA_FILE = "zarr.json"


def add_checksum(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """`attributes` with their checksum."""
    bare = {key: value for key, value in attributes.items() if key != CHECKSUM}
    return bare | {CHECKSUM: _checksum(json.dumps(bare, sort_keys=True).encode())}


def verify_and_strip_checksum(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """`attributes` without their checksum. Raises ValueError if it does not match; earlier versions wrote none."""
    bare = dict(attributes)
    stored = bare.pop(CHECKSUM, None)
    if stored is not None and stored != add_checksum(bare)[CHECKSUM]:
        raise ValueError("the checksum of its attributes does not match")
    return bare


def metadata_checksums(directory: Path) -> dict[str, str]:
    """{relative folder: checksum} of every `zarr.json` below `directory`, except the one in `directory` itself."""
    nodes = sorted(path for path in directory.rglob(METADATA_FILE) if path.parent != directory)
    return {path.parent.relative_to(directory).as_posix(): _checksum(path.read_bytes()) for path in nodes}


def _checksum(content: bytes) -> str:
    return f"{google_crc32c.value(content):08x}"
