"""Versions of installed packages, for both Pythons."""

from __future__ import annotations

import functools
from importlib import metadata


@functools.lru_cache
def version_of(package: str) -> str:
    """Name and version of a package, which may be installed under another name than its import name, or not at all."""
    names = [package]
    if hasattr(metadata, "packages_distributions"):  # Python 3.10
        names += metadata.packages_distributions().get(package, [])
    for name in names:
        try:
            return f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
    return f"{package} of unknown version"
