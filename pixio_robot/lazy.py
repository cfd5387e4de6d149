"""Lazy re-exports: a package exposes names of its modules, which are imported on first access.

`from pixio_robot.vision import PixioEncoder` works without knowing which module defines it, and importing one module of
a package does not load the others.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def lazy_exports(
    package: str, modules: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list], list[str]]:
    """Return `__getattr__`, `__dir__` (PEP 562) and `__all__` for a package. `modules`: module -> names to export."""
    module_of = {name: f"{package}.{module}" for module, names in modules.items() for name in names}

    def get_export(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(module_of[name]), name)

    return get_export, lambda: sorted(module_of), sorted(module_of)
