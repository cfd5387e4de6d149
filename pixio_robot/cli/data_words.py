"""`PATH ... key=value ...` of the `data` actions: paths, and a small dataclass of settings."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pixio_robot.errors import UserError, unknown_name

# Cameras, which `rename` takes as keys, may be called such as cam.left or wrist-2.
_SETTING = re.compile(r"([A-Za-z_][\w.-]*)=(.*)", re.DOTALL)

_COMMA = re.compile(r",(?![^\[\]]*\])")
"""Between the items of a list; those within a unit, `gripper [-1 opens, 1 closes]`, are none."""


def paths_and_pairs(arguments: list[str]) -> tuple[list[Path], dict[str, str]]:
    """Words without a key, and the others; a path that looks like `key=value` is written `./key=value`."""
    paths: list[Path] = []
    pairs: dict[str, str] = {}
    for word in arguments:
        match = _SETTING.fullmatch(word)
        if match is None:
            paths.append(Path(word))
        elif match[1] in pairs:
            raise UserError(f"{match[1]}= is given twice.")
        else:
            pairs[match[1]] = match[2]
    return paths, pairs


def need_paths(action: str, paths: list[Path], many: bool = False) -> None:
    if many and len(paths) < 2:
        raise UserError(f"`data {action}` takes at least two paths, not {len(paths)}.")
    if not many and len(paths) != 1:
        raise UserError(f"`data {action}` takes one path, not {len(paths)}.")


def settings[Settings](action: str, pairs: dict[str, str], schema: type[Settings]) -> Settings:
    """An instance of the dataclass `schema`; raises UserError for an unknown key, a wrong type or a missing value."""
    fields = {field.name: field for field in dataclasses.fields(schema)}  # type: ignore[arg-type]
    for key in pairs:
        if key not in fields:
            raise unknown_name(f"setting of `data {action}`", key, fields)
    values: dict[str, Any] = dict(pairs)
    for key, field in fields.items():
        if key in pairs and "list" in str(field.type):
            values[key] = [item for item in _COMMA.split(pairs[key]) if item]
        elif key not in pairs and field.default is MISSING:
            raise UserError(f"`data {action}` needs {key}=...")
    # Values are assigned one by one, so that OmegaConf converts them without reading them as YAML.
    config = OmegaConf.structured(schema)
    for key, value in values.items():
        try:
            config[key] = value
        except OmegaConfBaseException as error:
            raise UserError(f"`data {action}` {key}={pairs[key]}: {str(error).splitlines()[0]}.") from error
    try:
        return OmegaConf.to_object(config)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise UserError(f"`data {action}`: {str(error).splitlines()[0]}") from error
