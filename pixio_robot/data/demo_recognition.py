"""Telling a demonstration store from the other things that a path may point at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pixio_robot.errors import UserError
from pixio_robot.types import DemoSpec

FORMAT = "pixio_robot.demos"
FORMAT_VERSION = 1


def root_attributes(spec: DemoSpec) -> dict[str, Any]:
    """What the root group of a store says of itself."""
    return {"format": FORMAT, "format_version": FORMAT_VERSION, "spec": spec.to_json()}


def read_spec(path: Path) -> DemoSpec:
    """The DemoSpec of the store at `path`; raises UserError saying what `path` is when it is no store of ours."""
    if not path.exists():
        raise UserError(f"There is no demonstration store {path}.")
    header = path / "zarr.json"
    attributes: Any = None
    if header.is_file():
        try:
            attributes = json.loads(header.read_text())["attributes"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{header} is damaged ({error!r}): if {path} is a demonstration store, restore that file from a copy."
            ) from error
    if not isinstance(attributes, dict) or attributes.get("format") != FORMAT:
        raise UserError(f"{path} is {_what_it_is(path)}, not a demonstration store of pixio-robot (made by `collect`).")
    version = attributes.get("format_version")
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path} has format_version {version}, but this version of pixio-robot reads {FORMAT_VERSION}: "
            "read it with the version that wrote it."
        )
    try:
        return DemoSpec.from_json(attributes["spec"])
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{header} has no usable DemoSpec ({error!r}).") from error


def _what_it_is(path: Path) -> str:
    """Names the formats of other tools that people are likely to point at."""
    if path.is_file():
        return "a robomimic HDF5 file" if path.suffix in (".hdf5", ".h5") else "a file"
    if (path / "meta" / "info.json").is_file():
        return "a LeRobot data set"
    if (path / "meta" / "episode_ends").is_dir():
        return "a replay buffer of diffusion_policy"
    if (path / "manifest.json").is_file() and list(path.glob("*.tar")):
        return "a folder of frame shards"
    if (path / "zarr.json").is_file() or (path / ".zgroup").is_file() or (path / ".zarray").is_file():
        return "another tool's Zarr store"
    return "a folder"
