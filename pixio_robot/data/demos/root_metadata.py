"""Recognising demonstration stores and other things that a path may point to."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from pixio_robot.data.demos.codecs import check_codec
from pixio_robot.data.demos.metadata_checksums import METADATA_FILE, add_checksum, verify_and_strip_checksum
from pixio_robot.data.demos.migrations import FORMAT_VERSION, upgrade_attributes
from pixio_robot.data.demos.validation import check_spec
from pixio_robot.errors import UserError
from pixio_robot.files import write_json
from pixio_robot.types import DemoSpec

FORMAT = "pixio_robot.demos"


@dataclasses.dataclass(frozen=True)
class RootMetadata:
    """What the root group of a store records about all its episodes."""

    spec: DemoSpec
    image_codec: str


def root_attributes(spec: DemoSpec, image_codec: str) -> dict[str, Any]:
    """The attributes of a new store's root group."""
    return add_checksum(
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "spec": spec.to_json(),
            "image_codec": check_codec(image_codec),
        }
    )


def read_root_metadata(path: Path) -> RootMetadata:
    """Read the root of the store at `path`. Raises UserError if it is not a store of this format, saying what it is.

    A store of an older version is read as if `migrate_store` had been run on it.
    """
    _, attributes = _attributes(path)
    try:
        root = RootMetadata(DemoSpec.from_json(attributes["spec"]), check_codec(attributes["image_codec"]))
        check_spec(root.spec)  # a stranger's camera names become parts of paths
    except UserError as error:
        raise UserError(f"{path / METADATA_FILE} has no usable DemoSpec: {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{path / METADATA_FILE} has no usable DemoSpec ({error!r}).") from error
    return root


def migrate_store(path: Path) -> tuple[int, int]:
    """Upgrade the store at `path` to FORMAT_VERSION, atomically. Returns (version before, version now)."""
    before, after = _attributes(path)
    if after is not before:
        header = path / METADATA_FILE
        write_json(header, json.loads(header.read_text()) | {"attributes": add_checksum(after)})
    return before["format_version"], after["format_version"]


def _attributes(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The root attributes as stored, and upgraded to this version."""
    before = read_root_attributes(path)
    # Before checking, because a newer version may store its checksum differently.
    after = upgrade_attributes(before, path)
    try:
        verify_and_strip_checksum(before)
    except ValueError as error:
        raise UserError(f"{path / METADATA_FILE} is damaged ({error}): restore it from a copy.") from error
    return before, after


def read_root_attributes(path: Path) -> dict[str, Any]:
    """The root group's attributes, of any version. Raises UserError if `path` is not a store, saying what it is."""
    if not path.exists():
        raise UserError(f"There is no demonstration store {path}.")
    header = path / METADATA_FILE
    attributes: Any = None
    if header.is_file():
        try:
            attributes = json.loads(header.read_text())["attributes"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{header} is damaged ({error!r}): if {path} is a demonstration store, restore that file from a copy."
            ) from error
    if not isinstance(attributes, dict) or attributes.get("format") != FORMAT:
        raise UserError(
            f"{path} is {_describe_path(path)}, not a demonstration store of pixio-robot "
            "(made by `collect` or `data import`)."
        )
    return attributes


def _describe_path(path: Path) -> str:
    """Describe `path`, recognising the formats of other tools that users are likely to pass."""
    if path.is_file():
        return "an HDF5 file, as used by robomimic and ALOHA" if path.suffix in (".hdf5", ".h5") else "a file"
    if (path / "meta" / "info.json").is_file():
        return "a LeRobot data set"
    if (path / "meta" / "episode_ends").is_dir():
        return "a diffusion_policy replay buffer"
    if any(path.glob("episode_*.hdf5")):
        return "a folder of ALOHA HDF5 files"
    if (path / "manifest.json").is_file() and list(path.glob("*.tar")):
        return "a folder of frame shards"
    if (path / METADATA_FILE).is_file() or (path / ".zgroup").is_file() or (path / ".zarray").is_file():
        return "another tool's Zarr store"
    return "a folder"
