"""Register the options of the config group `policy` with Hydra: our policies, and those of installed packages."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from hydra.core.config_store import ConfigStore

from pixio_robot.cli.config.help import group_options
from pixio_robot.cli.config.overrides import config_directory, experiment_texts
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.plugins import Plugin, require_single_plugin
from policies.plugins import list_plugin_policies
from policies.registry import POLICIES, get_policy_entry


def register_policies(command: str, words: Sequence[str]) -> None:
    """Make `policy=NAME` composable, for our policies and for those of installed packages that `words` ask for.

    No other package is imported, so that a broken package only affects those who ask for it. `--help` lists all of
    them, and names those that cannot be imported on stderr. Raises UserError if a requested policy cannot be used.
    """
    store = ConfigStore.instance()
    for name, entry in POLICIES.items():
        if entry.package is None:
            store.store(group="policy", name=f"{name}_schema", node=entry.config)
    asked, lists_all, installed = (
        _requested_policies(command, words),
        bool({"-h", "--help"} & set(words)),
        list_plugin_policies(),
    )
    known = {*group_options(config_directory(), "policy"), *installed}
    for word in words:
        # Hydra's own message would not list installed policies that were not asked for.
        if plain := re.fullmatch(r"policy=(\w+(?:,\w+)*)", word):
            for name in set(plain[1].split(",")) - known:
                raise unknown_name("policy", name, known)
    for name, of_name in installed.items():
        if name not in asked and not lists_all:
            continue
        try:
            _register_policy(name, of_name)
        except UserError as error:
            if name in asked:
                raise
            print(f"pixio-robot: {error}", file=sys.stderr)


def _requested_policies(command: str, words: Sequence[str]) -> set[str]:
    """All policy names that are selected on the command line, in a sweep, or by an experiment."""
    values = [word.partition("=")[2] for word in words if word.startswith("policy=")]
    for text in experiment_texts(command, words):
        values += re.findall(r"override /policy: *(.+)", text)
    return {name for value in values for name in re.findall(r"\w[\w.-]*", value)}


def _register_policy(name: str, offers: list[Plugin]) -> None:
    if name in POLICIES and POLICIES[name].package is None:
        raise UserError(
            f"{offers[0]} has the name of one of pixio-robot's own policies, so policy={name} is ambiguous: rename or "
            "uninstall it."
        )
    require_single_plugin(offers)
    entry = get_policy_entry(name)
    try:
        ConfigStore.instance().store(group="policy", name=name, node=entry.config, provider=str(entry.package))
    except Exception as error:  # annotations of third-party classes can raise anything
        raise UserError(
            f"{offers[0]} has a config class that cannot be used for settings, {entry.config.__name__}: {error}"
        ) from error


def policy_origin(name: str) -> list[str]:
    """Identifies a policy from an installed package in the record of a training run; empty for our own policies, which
    their settings identify."""
    package = get_policy_entry(name).package
    return [] if package is None else [f"policy {name} of {package.name}"]
