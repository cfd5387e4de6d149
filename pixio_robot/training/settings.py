"""Settings as JSON values, and how they differ from recorded ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from pixio_robot.json_values import to_json_value

UNSET = "unset"
WITHOUT_EFFECT = frozenset(
    {"out", "run", "overwrite", "device", "workers", "log_every", "save_every", "keep_checkpoints"}
    | {"parallel", "peak_tflops", "wandb", "extend"}
)
"""Names of settings that do not affect the content of a result, but only its place or how it is computed."""
EXTENDABLE = frozenset({"loop.steps", "loop.seconds"})
"""Flat settings that may be larger when a run is continued with `loop.extend`."""


def flatten_settings(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings: {'loop.steps': 10, ...}."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= flatten_settings(item, _join_key(prefix, key))
    return flat


def flatten_defaults(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flat default values of all settings that have one, in dataclasses and mappings of them."""
    flat: dict[str, Any] = {}
    if isinstance(value, Mapping):
        for key, item in value.items():
            flat |= flatten_defaults(item, _join_key(prefix, key))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            name, item = _join_key(prefix, field.name), getattr(value, field.name)
            if dataclasses.is_dataclass(item):
                flat |= flatten_defaults(item, name)
            elif field.default is not dataclasses.MISSING:
                flat[name] = to_json_value(field.default)
            elif field.default_factory is not dataclasses.MISSING:
                flat[name] = to_json_value(field.default_factory())
    return flat


def diff_settings(
    earlier: Mapping[str, Any], now: Mapping[str, Any], default_settings: Mapping[str, Any]
) -> dict[str, tuple]:
    """Flat settings that differ: name -> (earlier, now).

    A setting missing in `earlier` had its value in `default_settings`: one that was added since and is not set is no
    difference.
    """
    before = {name: value for name, value in default_settings.items() if name in now} | dict(earlier)
    pairs = {name: (before.get(name, UNSET), now.get(name, UNSET)) for name in sorted(before.keys() | now.keys())}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def increased_settings(changed: Mapping[str, tuple], extendable: Collection[str]) -> set[str]:
    """Names from `diff_settings` whose value became larger and is allowed to."""
    numbers = {
        name: pair
        for name, pair in changed.items()
        if name in extendable and all(isinstance(value, int | float) for value in pair)
    }
    return {name for name, (before, now) in numbers.items() if before < now}


def _join_key(prefix: str, name: Any) -> str:
    return f"{prefix}.{name}" if prefix else str(name)
