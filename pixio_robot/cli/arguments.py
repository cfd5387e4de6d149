"""Arguments of `data` and `weights`, `PATH ... key=value ...` with a dataclass of settings for each action; output."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pixio_robot.errors import UserError, unknown_name

# `rename` takes camera names as keys, which may look like cam.left or wrist-2.
_SETTING = re.compile(r"([A-Za-z_][\w.-]*)=(.*)", re.DOTALL)

_COMMA = re.compile(r",(?![^\[\]]*\])")
"""Separates list items; commas inside brackets, as in `gripper [-1 opens, 1 closes]`, do not."""


@dataclasses.dataclass(kw_only=True)
class NoSettings:
    """An action without settings."""


def split_arguments(arguments: list[str]) -> tuple[list[Path], dict[str, str]]:
    """Split arguments into paths and `key=value` pairs; write `./key=value` for a path that looks like a pair."""
    paths: list[Path] = []
    pairs: dict[str, str] = {}
    for word in arguments:
        match = _SETTING.fullmatch(word)
        if match is None:
            paths.append(Path(word))
        elif match[1] in pairs:
            raise UserError(f"{match[1]}= is given twice.")
        else:
            # A shell leaves the ~ of out=~/x as it is.
            pairs[match[1]] = str(Path(match[2]).expanduser()) if match[2].startswith("~/") else match[2]
    return paths, pairs


def parse_arguments[Settings](
    action: str, arguments: list[str], schema: type[Settings], count: int = 1
) -> tuple[list[Path], Settings]:
    """The `count` paths and the settings of an action, such as `data verify`."""
    paths, pairs = split_arguments(arguments)
    check_path_count(action, paths, count)
    return paths, parse_settings(action, pairs, schema)


def parse_one_path[Settings](action: str, arguments: list[str], schema: type[Settings]) -> tuple[Path, Settings]:
    """The path and the settings of an action that takes exactly one path."""
    (path,), settings = parse_arguments(action, arguments, schema)
    return path, settings


def check_path_count(action: str, paths: list[Path], count: int = 1) -> None:
    if len(paths) != count:
        wanted = "one path" if count == 1 else f"{count} paths"
        raise UserError(f"`{action}` takes {wanted}, not {len(paths)}: see `pixio-robot {action} --help`.")


def parse_settings[Settings](action: str, pairs: dict[str, str], schema: type[Settings]) -> Settings:
    """Create the dataclass `schema`; raises UserError for an unknown key, a wrong type or a missing value."""
    fields = {field.name: field for field in dataclasses.fields(schema)}  # type: ignore[arg-type]
    for key in pairs:
        if key not in fields:
            raise unknown_name(f"setting of `{action}`", key, fields)
    values: dict[str, Any] = dict(pairs)
    for key, field in fields.items():
        if key in pairs and "list" in str(field.type):
            values[key] = [item for item in _COMMA.split(pairs[key]) if item]
        elif key not in pairs and field.default is MISSING:
            raise UserError(f"`{action}` needs {key}=...")
    # Values are assigned one by one, so that OmegaConf converts them without parsing them as YAML.
    config = OmegaConf.structured(schema)
    for key, value in values.items():
        try:
            config[key] = value
        except OmegaConfBaseException as error:
            raise UserError(f"`{action}` {key}={pairs[key]}: {str(error).splitlines()[0]}.") from error
    try:
        return OmegaConf.to_object(config)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise UserError(f"`{action}`: {str(error).splitlines()[0]}") from error


def print_result(what: str, episodes: int, steps: int, notes: Iterable[str] = ()) -> int:
    """Report what an action has written; returns exit code 0."""
    print(f"{what}: {episodes} episodes, {steps} steps")
    for note in notes:
        print(f"  {note}")
    return 0
