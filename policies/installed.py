"""Policies from other packages, available as soon as the package is installed.

A package declares its policies, subclasses of `ChunkPolicy`, in its pyproject.toml:

    [project.entry-points."pixio_robot.policies"]
    tanh_mlp = "tanh_policy:TanhPolicy"

Only installed packages determine which code can be imported. Names in checkpoints and configurations select among
them, and a package is not imported until one of its policies is requested.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import inspect
import re
from pathlib import Path
from typing import Any

from pixio_robot.errors import UserError
from policies.base import ChunkPolicy
from policies.config import PolicyConfig

GROUP = "pixio_robot.policies"
_NAME = re.compile(r"[A-Za-z_]\w*")
"""Valid after `policy=` and in a directory name."""


@dataclasses.dataclass(frozen=True)
class Package:
    """An installed distribution."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclasses.dataclass(frozen=True)
class Offer:
    """A policy declared by a package, not yet imported."""

    name: str
    package: Package
    entry_point: importlib.metadata.EntryPoint

    def __str__(self) -> str:
        return f"the policy {self.name!r} of the package {self.package}"

    def load(self) -> type[ChunkPolicy]:
        """Import the policy. Raises UserError naming the package if that fails or if it is not a policy."""
        try:
            found = self.entry_point.load()
        except (Exception, SystemExit) as error:
            raise UserError(
                f"{self} cannot be imported from {self.entry_point.value}: {type(error).__name__}: {error}. Fix or "
                "uninstall that package."
            ) from error
        if problem := problem_with(found):
            raise UserError(f"{self}, {self.entry_point.value}, {problem}.")
        return found


def offers() -> dict[str, list[Offer]]:
    """The policies of all installed packages, by name; several per name if packages clash. Takes about 10 ms."""
    found: dict[str, list[Offer]] = {}
    met: set[str] = set()
    # Not `importlib.metadata.entry_points`: if a package's metadata is also in the working directory, where
    # `pip install .` leaves some, that would return only the copy there.
    for distribution in importlib.metadata.distributions():
        points = distribution.entry_points.select(group=GROUP)
        # `python -m` searches the working directory too. Metadata found there, perhaps beside an untrusted checkpoint,
        # was not installed by the user.
        if not points or Path(str(distribution.locate_file(""))).resolve() == Path.cwd():
            continue
        package = Package(distribution.name, distribution.version)
        if (normal := re.sub(r"[-_.]+", "-", package.name).lower()) in met:
            continue  # the first on sys.path is the one that is imported
        met.add(normal)
        for point in points:
            found.setdefault(point.name, []).append(Offer(point.name, package, point))
    return found


def the_one(offers: list[Offer]) -> Offer:
    """The only offer. Raises UserError if several packages declare the same name, or if the name is invalid."""
    first, *others = offers
    if others:
        packages = " and ".join(str(offer.package) for offer in offers)
        raise UserError(f"The packages {packages} each have a policy called {first.name!r}: uninstall all but one.")
    if not _NAME.fullmatch(first.name):
        raise UserError(f"The name of {first} must consist of letters, digits and underscores only.")
    return first


def problem_with(found: Any) -> str:
    """What is wrong with the object that an entry point refers to; empty if it is a valid policy."""
    if not (inspect.isclass(found) and issubclass(found, ChunkPolicy)):
        return "must be a subclass of policies.ChunkPolicy"
    if inspect.isabstract(found):
        return f"does not define {' and '.join(sorted(found.__abstractmethods__))}"
    config = vars(found).get("config_class")
    if not (inspect.isclass(config) and issubclass(config, PolicyConfig)):
        return "needs its own config_class, a dataclass that is a subclass of policies.PolicyConfig"
    if "__dataclass_fields__" not in vars(config):
        return f"has a config_class, {config.__name__}, that lacks its own @dataclasses.dataclass(kw_only=True)"
    return ""
