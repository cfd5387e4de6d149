"""Case-insensitive enumerations for settings (`adapt.mode=lora`), which we write in lower case."""

from __future__ import annotations

import enum
from typing import Any

from pixio_robot.errors import unknown_name


class _CaseInsensitiveMeta(enum.EnumMeta):
    def __getitem__(cls, name: str) -> Any:
        """The member with that name, in any case. OmegaConf resolves user input through this method."""
        return super().__getitem__(name.upper())


class Choice(enum.Enum, metaclass=_CaseInsensitiveMeta):
    """An enumeration with upper-case member names that can be looked up in any case."""


def option_name(member: enum.Enum) -> str:
    """The member as users write it. Enumerations other than ours, which an installed policy may have, know one case."""
    return member.name.lower() if isinstance(member, Choice) else member.name


def parse_choice[Member: Choice](kind: type[Member], value: Member | str, setting: str) -> Member:
    """Convert a member or its name (in any case) to a member, for dataclasses that are created without OmegaConf.

    Raises UserError naming `setting` if it is neither.
    """
    if isinstance(value, kind):
        return value
    if not isinstance(value, str) or value.upper() not in kind.__members__:
        raise unknown_name(setting, str(value), [name.lower() for name in kind.__members__])
    return kind[value]
