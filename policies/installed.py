"""Policies of other packages: installed is enough.

A package names its policies, subclasses of `ChunkPolicy`, in its pyproject.toml:

    [project.entry-points."pixio_robot.policies"]
    tanh_mlp = "tanh_policy:TanhPolicy"

Only what is installed decides which code is imported. Names in checkpoints and configurations choose among these, and
a package whose policy nobody asks for is not imported at all.
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
"""What can be typed after `policy=`, and stand in the name of a directory."""


@dataclasses.dataclass(frozen=True)
class Package:
    """A distribution, as it is installed."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclasses.dataclass(frozen=True)
class Offer:
    """That a package has a policy of that name; nothing of it is imported yet."""

    name: str
    package: Package
    entry_point: importlib.metadata.EntryPoint

    def __str__(self) -> str:
        return f"the policy {self.name!r} of the package {self.package}"

    def load(self) -> type[ChunkPolicy]:
        """Import it. Raises UserError naming the package where that fails, or where it is no policy."""
        try:
            found = self.entry_point.load()
        except (Exception, SystemExit) as error:
            raise UserError(
                f"{self} cannot be imported from {self.entry_point.value}: {type(error).__name__}: {error}. Mend or "
                "uninstall that package."
            ) from error
        if problem := problem_with(found):
            raise UserError(f"{self}, {self.entry_point.value}, {problem}.")
        return found


def offers() -> dict[str, list[Offer]]:
    """By name, of everything installed; several of one name where packages clash. Takes some 10 ms."""
    found: dict[str, list[Offer]] = {}
    met: set[str] = set()
    # Not `importlib.metadata.entry_points`: of a package that lies in the working directory too, where `pip install .`
    # leaves its traces, that would tell only of the one there.
    for distribution in importlib.metadata.distributions():
        points = distribution.entry_points.select(group=GROUP)
        # `python -m` looks into the working directory too. What lies there, beside a stranger's checkpoint perhaps, was
        # installed by nobody.
        if not points or Path(str(distribution.locate_file(""))).resolve() == Path.cwd():
            continue
        package = Package(distribution.name, distribution.version)
        if (normal := re.sub(r"[-_.]+", "-", package.name).lower()) in met:
            continue  # the first on the path is the one that is imported
        met.add(normal)
        for point in points:
            found.setdefault(point.name, []).append(Offer(point.name, package, point))
    return found


def the_one(offers: list[Offer]) -> Offer:
    """Raises UserError where several packages have a policy of one name, or it cannot be typed."""
    first, *others = offers
    if others:
        packages = " and ".join(str(offer.package) for offer in offers)
        raise UserError(f"The packages {packages} each have a policy called {first.name!r}: uninstall all but one.")
    if not _NAME.fullmatch(first.name):
        raise UserError(f"{first} must be called by letters, digits and underscores alone.")
    return first


def problem_with(found: Any) -> str:
    """What is wrong with what an entry point led to; empty where it is a policy."""
    if not (inspect.isclass(found) and issubclass(found, ChunkPolicy)):
        return "must be a subclass of policies.ChunkPolicy"
    if inspect.isabstract(found):
        return f"does not define {' and '.join(sorted(found.__abstractmethods__))}"
    config = vars(found).get("config_class")
    if not (inspect.isclass(config) and issubclass(config, PolicyConfig)):
        return "needs a config_class of its own, a dataclass that is a subclass of policies.PolicyConfig"
    if "__dataclass_fields__" not in vars(config):
        return f"has a config_class, {config.__name__}, that lacks its own @dataclasses.dataclass(kw_only=True)"
    return ""
