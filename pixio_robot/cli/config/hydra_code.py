"""Keeping configuration files from naming code that Hydra would call in a sweep.

Single runs only compose. In a sweep Hydra instantiates its callbacks, and Python's logging calls what its configuration
names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from pixio_robot.cli.config.overrides import config_directory
from pixio_robot.errors import UserError

_CODE = ("callbacks", "hydra_logging", "job_logging", "launcher.setup")


def refuse_code_in_files(command: str, overrides: list[str]) -> None:
    """Raise UserError if a file that these overrides choose names code for Hydra to call; words that begin with `hydra`
    may. Requires an initialised Hydra."""
    allowed = _settings(command, [word for word in overrides if word.lstrip("+~").startswith("hydra")])
    for words in _file_choices(overrides):
        # A file may sweep, too, and choose further files.
        sweeper = OmegaConf.select(_settings(command, words), "sweeper.params") or {}
        for further in _file_choices([f"{key}={value}" for key, value in sweeper.items()]):
            settings = _settings(command, [*words, *further])
            for part in _CODE:
                if OmegaConf.select(settings, part) != OmegaConf.select(allowed, part):
                    raise UserError(
                        f"hydra.{part} is set in a configuration file, where it could run any code: set it on the "
                        "command line, or remove it."
                    )


def _settings(command: str, overrides: list[str]) -> Any:
    """Hydra's own settings, without their interpolations resolved."""
    composed = hydra.compose(command, overrides, return_hydra_config=True)
    return OmegaConf.create(OmegaConf.to_container(composed.hydra, resolve=False))  # type: ignore[arg-type]


def _file_choices(overrides: list[str]) -> Iterator[list[str]]:
    """Overrides of single runs that together choose every file of the sweep; sweeps over values are left out."""
    choices = []
    for override in OverridesParser.create().parse_overrides(overrides):
        if not override.is_sweep_override():
            choices.append([str(override.input_line)])
        elif (config_directory() / override.key_or_group).is_dir():
            key = override.get_key_element()
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
    first = [options[0] for options in choices]
    yield first
    for index, options in enumerate(choices):
        for option in options[1:]:
            yield [*first[:index], option, *first[index + 1 :]]
