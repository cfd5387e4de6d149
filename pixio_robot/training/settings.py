"""Settings as JSON values, and how they differ from recorded ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

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
        flat |= flatten_settings(item, f"{prefix}.{key}" if prefix else str(key))
    return flat


def diff_settings(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple]:
    """Flat settings that differ: name -> (earlier, now)."""
    pairs = {name: (earlier.get(name, UNSET), now.get(name, UNSET)) for name in sorted(earlier.keys() | now.keys())}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def increased_settings(changed: Mapping[str, tuple], extendable: Collection[str]) -> set[str]:
    """Names from `diff_settings` whose value became larger and is allowed to."""
    numbers = {
        name: pair
        for name, pair in changed.items()
        if name in extendable and all(isinstance(value, int | float) for value in pair)
    }
    return {name for name, (before, now) in numbers.items() if before < now}
