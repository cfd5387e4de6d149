"""Convert settings to JSON values, and config dataclasses back."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixio_robot.errors import UserError, unknown_name


def to_json_value(value: Any) -> Any:
    """Convert dataclasses to objects, enumerations to their name in lower case, tuples to lists, and paths to text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json_value(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.name.lower()
    if isinstance(value, Mapping):
        return {str(key): to_json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_value(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def config_from_json[T](kind: type[T], value: Any, where: str) -> T:
    """A config dataclass from the JSON that it was written to. Raises UserError, which begins with `where` it stands,
    for unknown keys and wrong values."""
    try:
        return _build_config(kind, value)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    except TypeError as error:
        raise UserError(f"{where}: a value of {kind.__name__} has the wrong type ({error}).") from error


def _build_config(kind: type[Any], value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise UserError(f"there is no {kind.__name__}.")
    names = {field.name for field in dataclasses.fields(kind)}
    for key in value:
        if key not in names:
            raise unknown_name(f"key of {kind.__name__}", key, names)
    hints = typing.get_type_hints(kind)
    return kind(**{key: _value_from_json(hints[key], item) for key, item in value.items()})


def _value_from_json(hint: Any, item: Any) -> Any:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    if dataclasses.is_dataclass(hint) and isinstance(item, Mapping):
        return _build_config(typing.cast(type, hint), item)
    if typing.get_origin(hint) is list and isinstance(item, list):
        return [_value_from_json(typing.get_args(hint)[0], each) for each in item]
    if isinstance(hint, type) and item is not None:
        if issubclass(hint, enum.Enum):
            members = {to_json_value(member): member for member in typing.cast(type[enum.Enum], hint)}
            if item not in members:
                raise unknown_name(hint.__name__, str(item), members)
            return members[item]
        if issubclass(hint, Path):
            return Path(item)
    return item
