"""Settings with a fixed list of values: `adapt.mode=lora`, in any case, and texts that a registry names."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable
from typing import Any

from pixio_robot.errors import unknown_name


class _AnyCase(enum.EnumMeta):
    def __getitem__(cls, name: str) -> Any:
        """The member of that name. OmegaConf looks up what a user wrote by this."""
        return super().__getitem__(name.upper())


class Choice(enum.Enum, metaclass=_AnyCase):
    """An enumeration whose members, named in capitals, are found by their name in any case."""


def chosen[Member: Choice](kind: type[Member], value: Member | str, setting: str) -> Member:
    """A member, or the one of that name in any case: dataclasses made in Python were looked at by no OmegaConf.

    Raises UserError naming `setting` where it is neither.
    """
    if isinstance(value, kind):
        return value
    if not isinstance(value, str) or value.upper() not in kind.__members__:
        raise unknown_name(setting, str(value), [name.lower() for name in kind.__members__])
    return kind[value]


NAMES = "names"
"""Key of a dataclass field's metadata: the texts that it, or its list, may hold."""


def one_of(default: str, names: Iterable[str]) -> Any:
    """A dataclass field that holds one of `names`. `--help` lists them; refusing others is up to the dataclass."""
    return dataclasses.field(default=default, metadata={NAMES: tuple(names)})
