"""Policies from other packages: subclasses of `ChunkPolicy` that they declare (see `pixio_robot.plugins`)."""

from __future__ import annotations

import inspect
from typing import Any

from pixio_robot import plugins
from pixio_robot.errors import UserError
from pixio_robot.plugins import Plugin
from policies.base import ChunkPolicy
from policies.config import PolicyConfig

ENTRY_POINT_GROUP = "pixio_robot.policies"


def list_plugin_policies() -> dict[str, list[Plugin]]:
    """The policies of all installed packages, by name."""
    return plugins.find_plugins(ENTRY_POINT_GROUP, "policy")


def load_plugin_policy(plugin: Plugin) -> type[ChunkPolicy]:
    """Import the policy. Raises UserError naming the package if that fails or if it is not a policy."""
    policy = plugin.load()
    if problem := find_class_problem(policy):
        raise UserError(f"{plugin}, {plugin.entry_point.value}, {problem}.")
    return policy


def find_class_problem(policy: Any) -> str:
    """What is wrong with the object that an entry point refers to; empty if it is a valid policy."""
    if not (inspect.isclass(policy) and issubclass(policy, ChunkPolicy)):
        return "must be a subclass of policies.ChunkPolicy"
    if inspect.isabstract(policy):
        return f"does not define {' and '.join(sorted(policy.__abstractmethods__))}"
    config = vars(policy).get("config_class")
    if not (inspect.isclass(config) and issubclass(config, PolicyConfig)):
        return "needs its own config_class, a dataclass that is a subclass of policies.PolicyConfig"
    if "__dataclass_fields__" not in vars(config):
        return f"has a config_class, {config.__name__}, that lacks its own @dataclasses.dataclass(kw_only=True)"
    return ""
