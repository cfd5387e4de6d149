"""Plugins: policies and encoders of other packages, available as soon as the package is installed.

A package declares it under a group of entry points, in its pyproject.toml:

    [project.entry-points."pixio_robot.policies"]
    tanh_mlp = "tanh_policy:TanhPolicy"

Only installed packages determine which code can be imported. Names in checkpoints and configurations select among
them, and a package is not imported until something of it is requested.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import re
from pathlib import Path
from typing import Any

from pixio_robot.errors import UserError

_VALID_NAME = re.compile(r"[A-Za-z_]\w*")
"""Valid in settings and in a directory name."""


@dataclasses.dataclass(frozen=True)
class Package:
    """An installed distribution."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclasses.dataclass(frozen=True)
class Plugin:
    """An object declared by a package, not yet imported. what: `policy` or `encoder`."""

    what: str
    name: str
    package: Package
    entry_point: importlib.metadata.EntryPoint

    def __str__(self) -> str:
        return f"the {self.what} {self.name!r} of the package {self.package}"

    def load(self) -> Any:
        """Import the object. Raises UserError naming the package if that fails."""
        try:
            return self.entry_point.load()
        except (Exception, SystemExit) as error:
            raise UserError(
                f"{self} cannot be imported from {self.entry_point.value}: {type(error).__name__}: {error}. Fix or "
                "uninstall that package."
            ) from error


def find_plugins(group: str, what: str) -> dict[str, list[Plugin]]:
    """All plugins that installed packages declare under `group`, by name; several per name if packages clash. Takes
    about 10 ms."""
    plugins: dict[str, list[Plugin]] = {}
    seen: set[str] = set()
    # Not `importlib.metadata.entry_points`: if a package's metadata is also in the working directory, where
    # `pip install .` leaves some, that would return only the copy there.
    for distribution in importlib.metadata.distributions():
        points = distribution.entry_points.select(group=group)
        # `python -m` searches the working directory too. Metadata found there, perhaps beside an untrusted checkpoint,
        # was not installed by the user.
        if not points or Path(str(distribution.locate_file(""))).resolve() == Path.cwd():
            continue
        package = Package(distribution.name, distribution.version)
        if (normal := normalise_package_name(package.name)) in seen:
            continue  # the first on sys.path is the one that is imported
        seen.add(normal)
        for point in points:
            plugins.setdefault(point.name, []).append(Plugin(what, point.name, package, point))
    return plugins


def normalise_package_name(name: str) -> str:
    """The normalised name of a distribution, in which names are compared: `my-policies` for `My_Policies`."""
    return re.sub(r"[-_.]+", "-", name).lower()


def require_single_plugin(plugins: list[Plugin]) -> Plugin:
    """The only plugin. Raises UserError if several packages declare the same name, or if the name is invalid."""
    first, *others = plugins
    if others:
        packages = " and ".join(str(plugin.package) for plugin in plugins)
        raise UserError(
            f"The packages {packages} each have {'an' if first.what[0] in 'aeiou' else 'a'} {first.what} called "
            f"{first.name!r}: uninstall all but one."
        )
    if not _VALID_NAME.fullmatch(first.name):
        raise UserError(f"The name of {first} must consist of letters, digits and underscores only.")
    return first
