"""Policies by name: ours, one `register` line each, and those of installed packages (policies/installed.py)."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from torch import nn

from pixio_robot.data.stats import Statistics
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.types import DemoSpec
from policies.act import ACTPolicy
from policies.base import ChunkPolicy
from policies.bc import BCPolicy
from policies.bc_gmm import BCGMMPolicy
from policies.bc_rnn import BCRNNPolicy
from policies.config import PolicyConfig
from policies.diffusion import DiffusionPolicy
from policies.flow import FlowPolicy
from policies.installed import Package, offers, problem_with, the_one
from policies.shortcut import ShortcutPolicy


@dataclasses.dataclass(frozen=True)
class PolicyEntry:
    """A policy's class, called as policy(config, spec, statistics, encoder), and the package that it comes from."""

    policy: type[ChunkPolicy]
    package: Package | None = None
    """None: pixio-robot itself, or a script that called `register`."""

    @property
    def config(self) -> type[PolicyConfig]:
        return self.policy.config_class


POLICIES: dict[str, PolicyEntry] = {}
"""Those known to this process; of installed packages only those that were asked for."""


def register(name: str, policy: type[ChunkPolicy], package: Package | None = None) -> None:
    """The same class again, as of a notebook's cell that is run anew, takes the place of what it was.

    Raises UserError for a name that is taken, for what is no policy, and for a config class that another policy has.
    """
    if package is None and (problem := problem_with(policy)):
        raise UserError(f"The policy {name!r} {problem}.")
    if name in POLICIES and _written_as(POLICIES[name].policy) != _written_as(policy):
        raise UserError(f"There already is a policy called {name!r}.")
    for other, entry in POLICIES.items():
        if other != name and entry.config is policy.config_class:
            of = f" of the package {package}" if package else ""
            raise UserError(
                f"The policy {name!r}{of} has the config class of {other!r}, {entry.config.__name__}: give it one of "
                "its own, which may be an empty subclass."
            )
    POLICIES[name] = PolicyEntry(policy, package)


def _written_as(policy: type[ChunkPolicy]) -> tuple[str, str]:
    return policy.__module__, policy.__qualname__


register("bc", BCPolicy)
register("bc_gmm", BCGMMPolicy)
register("bc_rnn", BCRNNPolicy)
register("act", ACTPolicy)
register("diffusion", DiffusionPolicy)
register("flow", FlowPolicy)
register("shortcut", ShortcutPolicy)


def policy_names() -> list[str]:
    """All that there are, those of installed packages too, which are not imported for that."""
    return sorted({*POLICIES, *offers()})


def policy_entry(name: str) -> PolicyEntry:
    """Raises UserError listing the valid names, or saying why an installed package's policy cannot be used."""
    if name not in POLICIES:
        found = offers()
        if name not in found:
            raise unknown_name("policy", name, {*POLICIES, *found})
        offer = the_one(found[name])
        register(name, offer.load(), offer.package)
    return POLICIES[name]


def build_policy(
    name: str, config: PolicyConfig, spec: DemoSpec, statistics: Statistics, encoder: nn.Module | None
) -> ChunkPolicy:
    """A fresh policy around `encoder`, which is None for a config without cameras, and for no other.

    Raises UserError where these do not fit one another.
    """
    entry = policy_entry(name)
    if not isinstance(config, entry.config):
        raise UserError(f"The policy {name!r} takes a {entry.config.__name__}, not a {type(config).__name__}.")
    if encoder is not None and not config.conditioning.cameras:
        raise UserError(
            "The policy is given an encoder and no camera to see through it: name some in conditioning.cameras (of "
            f"these demonstrations: {', '.join(sorted(spec.cameras)) or 'none'}), or give it no encoder."
        )
    return entry.policy(config, spec, statistics, encoder)


def name_of_config(config: PolicyConfig) -> str:
    """The policy that these are the settings of. Raises UserError where there is none."""
    for name, entry in _all_policies():
        if entry.config is type(config):
            return name
    raise UserError(f"{type(config).__name__} is the config class of no policy that is known here.")


def policy_name(policy: ChunkPolicy) -> str:
    """The name under which the class of `policy` is known here. Raises UserError where it has none."""
    for name, entry in _all_policies():
        if entry.policy is type(policy):
            return name
    raise UserError(
        f"{type(policy).__name__} has no name to be saved by: call policies.register(name, {type(policy).__name__}), "
        "or install it as a package with an entry point (docs/python.md)."
    )


def _all_policies() -> Iterator[tuple[str, PolicyEntry]]:
    """Those known to this process, then those of installed packages, which are imported on the way.

    A process that a launcher started may meet the settings of a package's policy before anybody asked for it by name.
    """
    yield from list(POLICIES.items())
    for name in offers():
        with contextlib.suppress(UserError):  # of a package that this is not about
            yield name, policy_entry(name)
