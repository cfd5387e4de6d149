"""The choices of the settings' group `policy`, for Hydra: our own policies, and those of installed packages."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from hydra.core.config_store import ConfigStore

from pixio_robot.cli.compose import config_directory, experiment_texts
from pixio_robot.cli.help import choices
from pixio_robot.errors import UserError, unknown_name
from policies.installed import Offer, offers, the_one
from policies.registry import POLICIES, policy_entry


def register_policies(command: str, words: Sequence[str]) -> None:
    """Make `policy=NAME` composable, for our policies and for those of installed packages that `words` ask for.

    No other package is imported, so that a broken one is in nobody's way. `--help` lists them all: those that cannot be
    imported are named on stderr then. Raises UserError for one that is asked for and cannot be used.
    """
    store = ConfigStore.instance()
    for name, entry in POLICIES.items():
        if entry.package is None:
            store.store(group="policy", name=f"{name}_schema", node=entry.config)
    asked, listed, found = _asked_for(command, words), bool({"-h", "--help"} & set(words)), offers()
    known = {*choices(config_directory(), "policy"), *found}
    for word in words:
        # Hydra's own message would not name what is installed and was not asked for.
        if plain := re.fullmatch(r"policy=(\w+(?:,\w+)*)", word):
            for name in set(plain[1].split(",")) - known:
                raise unknown_name("policy", name, known)
    for name, of_name in found.items():
        if name not in asked and not listed:
            continue
        try:
            _register(name, of_name)
        except UserError as error:
            if name in asked:
                raise
            print(f"pixio-robot: {error}", file=sys.stderr)


def _asked_for(command: str, words: Sequence[str]) -> set[str]:
    """Every word that stands where a policy is chosen, be it one of a sweep's."""
    values = [word.partition("=")[2] for word in words if word.startswith("policy=")]
    for text in experiment_texts(command, words):
        values += re.findall(r"override /policy: *(.+)", text)
    return {name for value in values for name in re.findall(r"\w[\w.-]*", value)}


def _register(name: str, offers: list[Offer]) -> None:
    if name in POLICIES and POLICIES[name].package is None:
        raise UserError(
            f"{offers[0]} is called like one of pixio-robot's own: rename or uninstall it, or nobody knows which of "
            f"the two policy={name} is."
        )
    the_one(offers)
    entry = policy_entry(name)
    try:
        ConfigStore.instance().store(group="policy", name=name, node=entry.config, provider=str(entry.package))
    except Exception as error:  # whatever another's annotations lead to
        raise UserError(
            f"{offers[0]} has a config class that no settings can be made of, {entry.config.__name__}: {error}"
        ) from error


def origin(name: str) -> list[str]:
    """What tells a policy of an installed package from others in the record of a training; nothing for one of ours,
    whose settings do."""
    package = policy_entry(name).package
    return [] if package is None else [f"policy {name} of {package.name}"]
