"""Dataclass fields whose valid values `--help` shows and `check_fields` enforces.

@dataclass(kw_only=True)
class LoopConfig:
    steps: int = number(1000, at_least=1)
    dtype: str = one_of("auto", DTYPES)

    def __post_init__(self) -> None:
        check_fields(self, "loop.")
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Iterable
from typing import Any

from pixio_robot.choice import Choice, parse_choice
from pixio_robot.errors import UserError, unknown_name

NAMES = "names"
"""Metadata key of a field: the valid values of the field, or of the items of its list."""

LIMITS = "limits"
"""Metadata key of a field: the `Limits` of the field, or of the items of its list."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """An interval of finite numbers, open at `above` and `below`."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    why: str = ""
    """Appended to the error: the reason for a limit, or what to use instead."""

    def __contains__(self, value: float) -> bool:
        return (
            math.isfinite(value)
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        if self.at_least is not None and self.at_most is not None:
            return f"from {self.at_least} to {self.at_most}"
        limits = (("at least", self.at_least), ("above", self.above), ("at most", self.at_most), ("below", self.below))
        return " and ".join(f"{word} {limit}" for word, limit in limits if limit is not None)


def one_of(default: str | list[str], names: Iterable[str]) -> Any:
    """A field that holds one of `names`, or a list of them."""
    return _field(default, {NAMES: tuple(names)})


def number(
    default: Any,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    why: str = "",
) -> Any:
    """A field that holds a number within the given limits, or a list of such numbers. None is valid if its type
    says so."""
    return _field(default, {LIMITS: Limits(at_least=at_least, above=above, at_most=at_most, below=below, why=why)})


def _field(default: Any, metadata: dict[str, Any]) -> Any:
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def field_metadata(schema: type, name: str) -> dict[str, Any]:
    """Metadata of a field: that of its base class too, where a subclass only gives it another default."""
    fields = [vars(each)["__dataclass_fields__"] for each in schema.__mro__ if "__dataclass_fields__" in vars(each)]
    metadata: dict[str, Any] = {}
    for each in reversed(fields):
        metadata |= each[name].metadata if name in each else {}
    return metadata


def check_fields(settings: Any, prefix: str = "") -> None:
    """Raise UserError for a field of the dataclass `settings` that is outside its range or not among its names.

    Names of choices, as written in YAML, become their members. `prefix`: where the settings are on the command line,
    such as `loop.`.
    """
    for field in dataclasses.fields(settings):
        value, key, kind = getattr(settings, field.name), prefix + field.name, str(field.type)
        if isinstance(field.default, Choice):
            setattr(settings, field.name, parse_choice(type(field.default), value, key))
        if isinstance(value, list | tuple) and "[" in kind:
            values = {f"{key}[{index}]": item for index, item in enumerate(value)}
        else:
            values = {} if value is None else {key: value}
        metadata = field_metadata(type(settings), field.name)
        names, limits = metadata.get(NAMES), metadata.get(LIMITS)
        required = numbers.Integral if "int" in kind else numbers.Real
        for key, item in values.items():
            if names and item not in names:
                raise unknown_name(key, str(item), names)
            if limits and not (isinstance(item, required) and item in limits):
                whole = "a whole number " if required is numbers.Integral and not isinstance(item, required) else ""
                or_null = ", or null" if "None" in kind else ""
                why = f" ({limits.why})" if limits.why else ""
                shown = item if isinstance(item, numbers.Number) else repr(item)
                raise UserError(f"{key}={shown} must be {whole}{limits}{or_null}{why}.")
