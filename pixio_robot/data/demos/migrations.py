"""Versions of the demonstration store, and the migration from each to the next.

    1   raw images only
    2   `image_codec` in the root group's attributes; the attributes of the root and of new episodes are checksummed

A migration step changes only the root group's attributes, so that a store of any size is migrated at once and older
stores can be read without migration. A version with different arrays would need its own command to rewrite them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pixio_robot.data.demos.codecs import RAW
from pixio_robot.errors import UserError

FORMAT_VERSION = 2

Attributes = dict[str, Any]

STEPS: dict[int, Callable[[Attributes], Attributes]] = {
    1: lambda attributes: attributes | {"image_codec": RAW},
}
"""STEPS[v] upgrades from version v to v + 1."""


def upgrade_attributes(attributes: Attributes, path: Path) -> Attributes:
    """`attributes` upgraded to FORMAT_VERSION. Raises UserError if the version is missing or newer."""
    version = attributes.get("format_version")
    if not isinstance(version, int) or version not in (*STEPS, FORMAT_VERSION):
        raise UserError(
            f"{path} has format_version {version}, but this version of pixio-robot reads {min(STEPS)} to "
            f"{FORMAT_VERSION}: " + ("restore its zarr.json from a copy." if version is None else "use a newer one.")
        )
    for step in range(version, FORMAT_VERSION):
        attributes = STEPS[step](attributes) | {"format_version": step + 1}
    return attributes
