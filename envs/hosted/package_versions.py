"""Versions of installed packages, for both Pythons."""

from __future__ import annotations

import functools
from importlib import metadata


@functools.lru_cache
def version_of(package: str) -> str:
    """Name and version of a package, which may be installed under another name than its import name, or not at all."""
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        # Only now, because finding the names reads a file of every package that is installed.
        names = getattr(metadata, "packages_distributions", dict)().get(package)  # Python 3.10
    return f"{names[0]} {metadata.version(names[0])}" if names else f"{package} of unknown version"
