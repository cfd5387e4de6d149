"""Names that a package hands on from its modules, imported when they are first asked for.

So `from pixio_robot.vision import PixioEncoder` needs no knowledge of where it lies, and commands that import a module
of a package do not pay for the rest of it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def handed_on(
    package: str, modules: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list], list[str]]:
    """A package's `__getattr__`, `__dir__` (PEP 562) and `__all__`. `modules`: names by the package's own modules."""
    where = {name: f"{package}.{module}" for module, names in modules.items() for name in names}

    def find(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(where[name]), name)

    return find, lambda: sorted(where), sorted(where)
