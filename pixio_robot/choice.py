"""Settings with a fixed list of values: `adapt.mode=lora`, in any case."""

from __future__ import annotations

import enum
from typing import Any


class _AnyCase(enum.EnumMeta):
    def __getitem__(cls, name: str) -> Any:
        """The member of that name. OmegaConf looks up what a user wrote by this."""
        return super().__getitem__(name.upper())


class Choice(enum.Enum, metaclass=_AnyCase):
    """An enumeration whose members, named in capitals, are found by their name in any case."""
