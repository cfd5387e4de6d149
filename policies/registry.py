"""Policies by name. A new policy is one new file and one `register` line here."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn

from pixio_robot.data.stats import Statistics
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.types import DemoSpec
from policies.act import ACTConfig, ACTPolicy
from policies.base import ChunkPolicy
from policies.bc import BCPolicy
from policies.bc_gmm import BCGMMConfig, BCGMMPolicy
from policies.bc_rnn import BCRNNConfig, BCRNNPolicy
from policies.config import BCConfig, DiffusionConfig, PolicyConfig
from policies.diffusion import DiffusionPolicy
from policies.flow import FlowConfig, FlowPolicy
from policies.shortcut import ShortcutConfig, ShortcutPolicy


@dataclasses.dataclass(frozen=True)
class PolicyEntry:
    """A policy's class and the class of its config."""

    config: type[PolicyConfig]
    policy: Any
    """Called as policy(config, spec, statistics, encoder); a subclass of ChunkPolicy."""


POLICIES: dict[str, PolicyEntry] = {}


def register(name: str, config: type[PolicyConfig], policy: type[ChunkPolicy]) -> None:
    if name in POLICIES:
        raise UserError(f"There already is a policy called {name!r}.")
    POLICIES[name] = PolicyEntry(config, policy)


register("bc", BCConfig, BCPolicy)
register("bc_gmm", BCGMMConfig, BCGMMPolicy)
register("bc_rnn", BCRNNConfig, BCRNNPolicy)
register("act", ACTConfig, ACTPolicy)
register("diffusion", DiffusionConfig, DiffusionPolicy)
register("flow", FlowConfig, FlowPolicy)
register("shortcut", ShortcutConfig, ShortcutPolicy)


def policy_entry(name: str) -> PolicyEntry:
    """Raises UserError listing the valid names."""
    if name not in POLICIES:
        raise unknown_name("policy", name, POLICIES)
    return POLICIES[name]


def build_policy(
    name: str, config: PolicyConfig, spec: DemoSpec, statistics: Statistics, encoder: nn.Module | None
) -> ChunkPolicy:
    """A fresh policy around `encoder`, which may be None only for a config without cameras."""
    entry = policy_entry(name)
    if not isinstance(config, entry.config):
        raise UserError(f"The policy {name!r} takes a {entry.config.__name__}, not a {type(config).__name__}.")
    return entry.policy(config, spec, statistics, encoder)


def policy_name(policy: ChunkPolicy) -> str:
    """The name under which the class of `policy` is registered."""
    for name, entry in POLICIES.items():
        if type(policy) is entry.policy:
            return name
    raise UserError(
        f"{type(policy).__name__} is not a registered policy: add a `register` line to policies/registry.py."
    )
