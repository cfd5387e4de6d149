"""Settings as JSON values, and how they differ from recorded ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from pixio_robot.json_values import plain

UNSET = "unset"
GROWING = frozenset({"loop.steps", "loop.seconds"})
"""Flat settings that may be larger when a run is continued with `loop.extend`."""


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings: {'loop.steps': 10, ...}."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= flatten(item, _joined(prefix, key))
    return flat


def defaults(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flat default values of all settings that have one, in dataclasses and mappings of them."""
    flat: dict[str, Any] = {}
    if isinstance(value, Mapping):
        for key, item in value.items():
            flat |= defaults(item, _joined(prefix, key))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            name, item = _joined(prefix, field.name), getattr(value, field.name)
            if dataclasses.is_dataclass(item):
                flat |= defaults(item, name)
            elif field.default is not dataclasses.MISSING:
                flat[name] = plain(field.default)
            elif field.default_factory is not dataclasses.MISSING:
                flat[name] = plain(field.default_factory())
    return flat


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any], unsaid: Mapping[str, Any]) -> dict[str, tuple]:
    """Flat settings that differ: name -> (earlier, now).

    A setting missing in `earlier` had its value in `unsaid`: one that was added since and is not set is no difference.
    """
    before = {name: value for name, value in unsaid.items() if name in now} | dict(earlier)
    pairs = {name: (before.get(name, UNSET), now.get(name, UNSET)) for name in sorted(before.keys() | now.keys())}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def grown(changed: Mapping[str, tuple], may_grow: Collection[str]) -> set[str]:
    """Names from `differences` whose value became larger and is allowed to."""
    numbers = {
        name: pair
        for name, pair in changed.items()
        if name in may_grow and all(isinstance(value, int | float) for value in pair)
    }
    return {name for name, (before, now) in numbers.items() if before < now}


def _joined(prefix: str, name: Any) -> str:
    return f"{prefix}.{name}" if prefix else str(name)
