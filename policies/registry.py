"""Policies by name: our own, one `register` line each, and those of installed packages (policies/plugins.py)."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from torch import nn

from pixio_robot.data.stats import Statistics
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.plugins import Package, require_single_plugin
from pixio_robot.types import DemoSpec
from policies.act import ACTPolicy
from policies.base import ChunkPolicy
from policies.bc import BCPolicy
from policies.bc_gmm import BCGMMPolicy
from policies.bc_rnn import BCRNNPolicy
from policies.config import PolicyConfig
from policies.diffusion import DiffusionPolicy
from policies.flow import FlowPolicy
from policies.plugins import find_class_problem, list_plugin_policies, load_plugin_policy
from policies.shortcut import ShortcutPolicy


@dataclasses.dataclass(frozen=True)
class PolicyEntry:
    """A policy class, called as policy(config, spec, statistics, encoder), and the package it comes from."""

    policy: type[ChunkPolicy]
    package: Package | None = None
    """None: pixio-robot itself, or a script that called `register`."""

    @property
    def config(self) -> type[PolicyConfig]:
        return self.policy.config_class


POLICIES: dict[str, PolicyEntry] = {}
"""Policies known to this process; those of installed packages only after they were requested."""


def register(name: str, policy: type[ChunkPolicy], package: Package | None = None) -> None:
    """Register a policy under a name. A redefinition of the same class, as in a rerun notebook cell, replaces it.

    Raises UserError for a name that is taken, an invalid policy class, and a config class that another policy uses.
    """
    if package is None and (problem := find_class_problem(policy)):
        raise UserError(f"The policy {name!r} {problem}.")
    if name in POLICIES and _get_qualified_name(POLICIES[name].policy) != _get_qualified_name(policy):
        raise UserError(f"There is already a policy called {name!r}.")
    for other, entry in POLICIES.items():
        if other != name and entry.config is policy.config_class:
            of = f" of the package {package}" if package else ""
            raise UserError(
                f"The policy {name!r}{of} has the same config class as {other!r}, {entry.config.__name__}: give it its "
                "own, which may be an empty subclass."
            )
    POLICIES[name] = PolicyEntry(policy, package)


def _get_qualified_name(policy: type[ChunkPolicy]) -> tuple[str, str]:
    return policy.__module__, policy.__qualname__


register("bc", BCPolicy)
register("bc_gmm", BCGMMPolicy)
register("bc_rnn", BCRNNPolicy)
register("act", ACTPolicy)
register("diffusion", DiffusionPolicy)
register("flow", FlowPolicy)
register("shortcut", ShortcutPolicy)


def list_policy_names() -> list[str]:
    """The names of all policies, including those of installed packages, which are not imported for this."""
    return sorted({*POLICIES, *list_plugin_policies()})


def get_policy_entry(name: str) -> PolicyEntry:
    """The policy of that name. Raises UserError listing the valid names, or saying why a package's policy fails."""
    if name not in POLICIES:
        installed = list_plugin_policies()
        if name not in installed:
            raise unknown_name("policy", name, {*POLICIES, *installed})
        plugin = require_single_plugin(installed[name])
        register(name, load_plugin_policy(plugin), plugin.package)
    return POLICIES[name]


def build_policy(
    name: str, config: PolicyConfig, spec: DemoSpec, statistics: Statistics, encoder: nn.Module | None
) -> ChunkPolicy:
    """Build a new policy with `encoder`, which must be None if and only if the config has no cameras.

    Raises UserError if the arguments do not match each other.
    """
    entry = get_policy_entry(name)
    if not isinstance(config, entry.config):
        raise UserError(f"The policy {name!r} takes a {entry.config.__name__}, not a {type(config).__name__}.")
    if encoder is not None and not config.conditioning.cameras:
        raise UserError(
            "The policy has an encoder but no cameras: set conditioning.cameras (the demonstrations have "
            f"{', '.join(sorted(spec.cameras)) or 'none'}), or leave out the encoder."
        )
    return entry.policy(config, spec, statistics, encoder)


def get_policy_name_from_config(config: PolicyConfig) -> str:
    """The policy that a config belongs to. Raises UserError if there is none."""
    for name, entry in _all_policies():
        if entry.config is type(config):
            return name
    raise UserError(f"{type(config).__name__} is not the config class of any known policy.")


def get_policy_name(policy: ChunkPolicy) -> str:
    """The name under which the class of `policy` is registered. Raises UserError if there is none."""
    for name, entry in _all_policies():
        if entry.policy is type(policy):
            return name
    raise UserError(
        f"{type(policy).__name__} is not registered, so it cannot be saved: call policies.register(name, "
        f"{type(policy).__name__}), or install it as a package with an entry point (docs/python.md)."
    )


def _all_policies() -> Iterator[tuple[str, PolicyEntry]]:
    """Policies known to this process, then those of installed packages, which are imported one by one.

    A process started by a launcher may receive the config of a package's policy before it was requested by name.
    """
    yield from list(POLICIES.items())
    for name in list_plugin_policies():
        with contextlib.suppress(UserError):  # a broken package is irrelevant here
            yield name, get_policy_entry(name)
