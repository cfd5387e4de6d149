"""Success as an environment reports it, for both Pythons."""

from __future__ import annotations

from typing import Any

_KEYS = ("is_success", "success", "solved")
"""Keys of `info`; `solved` is MyoSuite's and RoboHive's. The first one that is there counts."""


def is_success(info: dict[str, Any]) -> bool:
    """False where it does not say."""
    return next((bool(info[key]) for key in _KEYS if key in info), False)
