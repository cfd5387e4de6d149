"""Compose `key=value` arguments and YAML files into one typed configuration object.

Hydra does the composition; the schema is the dataclass that lives next to what it configures. A command module
calls `run(...)` with its schema; this file turns Hydra's errors into readable messages.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import math
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from pixio_robot.choice import option_name
from pixio_robot.cli.config.cluster import (
    cluster_job,
    is_cluster_job,
    launcher_of,
    prepare_submission,
    submission_errors,
)
from pixio_robot.cli.config.expand_home import expand_home
from pixio_robot.cli.config.help import help_text
from pixio_robot.cli.config.hydra_code import refuse_code_in_files
from pixio_robot.cli.config.hydra_errors import to_user_error, unknown_setting
from pixio_robot.cli.config.hydra_state import isolated_hydra, patched_command_line
from pixio_robot.cli.config.overrides import config_directory, to_hydra_overrides
from pixio_robot.cli.signals import INTERRUPTED, SignalInterrupt
from pixio_robot.cli.stages.stage import remember_command
from pixio_robot.errors import UserError

SWEEP_FILES = ["hydra.sweep.dir=${run}/sweeps/${now:%Y-%m-%d_%H-%M-%S}", "hydra.job.chdir=false"]


def _dotted_keys(node: Any, prefix: str = "") -> list[str]:
    """Every dotted key of a composed configuration."""
    keys = []
    if isinstance(node, DictConfig):
        for key in node:
            keys += [f"{prefix}{key}", *_dotted_keys(node._get_node(key), f"{prefix}{key}.")]
    return keys


def load_settings(command: str, schema: type, arguments: list[str]) -> Any:
    """Compose `configs/<command>.yaml` with `arguments` into an instance of `schema`."""
    with _hydra_with_readable_errors(command, schema, arguments):
        return to_dataclass(command, _compose(command, arguments))


def _compose(command: str, arguments: list[str], **options: Any) -> DictConfig:
    try:
        return hydra.compose(command, to_hydra_overrides(command, arguments), **options)
    except (AttributeError, AssertionError) as error:
        # OmegaConf 2.3 fails this way for a setting inside a null value, which only occurs in list items.
        inside = [word for word in arguments if re.match(r"[\w.]+\.\d+\.", word)]
        if not inside:
            raise
        raise UserError(
            f"`{command}` cannot set {' '.join(inside)}: the setting that contains it is null. Set the whole list "
            "instead, such as students=[{encoder: {size: small}, mask: {ratio: 0.5}}]."
        ) from error
    except (TypeError, ValueError) as error:
        # So does Hydra for a number in place of an option.
        chosen = _chosen_options(arguments)
        if isinstance(error, OmegaConfBaseException) or not chosen:
            raise
        raise UserError(f"`{command}` cannot read {' '.join(chosen)}: give the name of one option (--help).") from error


def _chosen_options(words: list[str]) -> list[str]:
    """The words that choose an option of a config group."""
    return [word for word in words if (config_directory() / word.partition("=")[0]).is_dir()]


@contextlib.contextmanager
def _hydra_with_readable_errors(command: str, schema: type, words: list[str]) -> Iterator[None]:
    """Set up Hydra for `command`, and turn its exceptions into UserErrors."""
    ConfigStore.instance().store(name=f"{command}_schema", node=schema)
    with isolated_hydra(), hydra.initialize_config_dir(str(config_directory()), version_base="1.3"):
        try:
            yield
        except (HydraException, OmegaConfBaseException) as error:
            raise to_user_error(error, command, _valid_keys(command, words), words) from error


def _valid_keys(command: str, words: list[str]) -> list[str]:
    """All settings that exist with the config groups chosen in `words`, or by default if those do not compose."""
    for choice in (_chosen_options(words), []):
        with contextlib.suppress(HydraException, OmegaConfBaseException, UserError):
            return _dotted_keys(_compose(command, choice))
    return []


def to_dataclass(command: str, composed: DictConfig) -> Any:
    _refuse_unknown(command, composed)
    missing = sorted(OmegaConf.missing_keys(composed))
    if missing:
        raise UserError(
            f"{missing[0]!r} is required: set {missing[0]}=... on the command line or in an experiment file."
        )
    OmegaConf.resolve(composed)
    expand_home(composed)
    _refuse_infinite(OmegaConf.to_container(composed, enum_to_str=True))
    return OmegaConf.to_object(composed)


def _refuse_unknown(command: str, node: DictConfig, prefix: str = "") -> None:
    """Hydra adds what is typed as +key or ++key whatever the schema says, and nobody would read it."""
    schema = OmegaConf.get_type(node)
    known = [field.name for field in dataclasses.fields(schema)] if dataclasses.is_dataclass(schema) else None
    for key in () if node._is_none() or node._is_missing() else node:
        if known is not None and key not in known:
            raise unknown_setting(command, f"{prefix}{key}", [f"{prefix}{name}" for name in known])
        inside = node._get_node(key)
        if isinstance(inside, DictConfig):
            _refuse_unknown(command, inside, f"{prefix}{key}.")


def _refuse_infinite(value: Any, key: str = "") -> None:
    """Reject infinity and NaN: no setting has a use for them, and JSON, in which settings are stored, has neither."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in inside:
        _refuse_infinite(item, f"{key}.{name}".lstrip("."))
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{key} = {value} must be a finite number.")


def _as_typed(value: Any) -> Any:
    """The value, with members of enumerations as they are typed on a command line."""
    if isinstance(value, dict):
        return {key: _as_typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_typed(item) for item in value]
    return option_name(value) if isinstance(value, enum.Enum) else value


def run_command_line(command: str, schema: type, function: Callable[[Any], int], arguments: list[str]) -> int:
    """Entry point of every command: help, `--cfg`, a single run, or a Hydra sweep (`-m`, with any launcher)."""
    if "-h" in arguments or "--help" in arguments:
        print(_help(command, schema, [word for word in arguments if not word.startswith("-")]))
        return 0
    if "-m" in arguments or "--multirun" in arguments:
        return _sweep(command, schema, function, arguments)
    if "--cfg" in arguments:
        words = [word for word in arguments if word not in ("--cfg", "job")]
        with _hydra_with_readable_errors(command, schema, words):
            print(OmegaConf.to_yaml(_as_typed(OmegaConf.to_container(_compose(command, words)))), end="")
        return 0
    return function(load_settings(command, schema, arguments))


def _help(command: str, schema: type, words: list[str]) -> str:
    with _hydra_with_readable_errors(command, schema, words):
        composed = _compose(command, words, return_hydra_config=True)
    chosen = dict(composed.hydra.runtime.choices)
    with open_dict(composed):
        del composed["hydra"]
    return help_text(command, schema, words, composed, chosen, config_directory())


def _print_failure(error: Exception, command: str) -> None:
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        error = to_user_error(error, command, [], [])
    if isinstance(error, UserError):
        print(f"pixio-robot: this run failed: {error}", file=sys.stderr, flush=True)
    else:
        traceback.print_exception(error)


def _sweep(command: str, schema: type, function: Callable[[Any], int], arguments: list[str]) -> int:
    """One run per combination of the comma-separated values; returns the highest exit code."""
    ConfigStore.instance().store(name=f"{command}_schema", node=schema)
    codes = [0]
    failures: list[Exception] = []

    def job(composed: DictConfig) -> None:
        remember_command([command, *arguments])  # a launcher may run this in another process
        try:
            with cluster_job():
                codes.append(function(to_dataclass(command, composed)))
        except Exception as error:
            # Hydra raises the first after the last run, and says nothing of the others.
            if failures or is_cluster_job():
                _print_failure(error, command)
            failures.append(error)
            raise
        if codes[-1] == INTERRUPTED:
            if is_cluster_job():
                # All is saved. With another code, Slurm may end the tasks before the first has requeued the job.
                sys.exit(0)
            raise SignalInterrupt(signal.SIGINT)  # otherwise the next combination would start

    wrapped = hydra.main(version_base="1.3", config_path=str(config_directory()), config_name=command)(job)
    words = [word for word in arguments if word not in ("-m", "--multirun")]
    for word in words:
        if word.startswith("-"):
            raise UserError(f"`{command} -m` has no option {word}; settings are written key=value, without dashes.")
    with _hydra_with_readable_errors(command, schema, words):
        overrides = to_hydra_overrides(command, words)
        refuse_code_in_files(command, overrides)
        launch = prepare_submission(command, overrides)
    # Hydra's parser accepts its flag only before the overrides. Hydra's own files go next to the results.
    own = [*SWEEP_FILES, f"hydra.job.name={command}"]  # by that name, Slurm lists its jobs
    line = [f"pixio-robot {command}", "-m", *to_hydra_overrides(command, [*own, *launch, *words])]
    try:
        with isolated_hydra(), patched_command_line(line), submission_errors(launcher_of(words)):
            wrapped()
    except (HydraException, OmegaConfBaseException) as error:
        raise to_user_error(error, command, [], words) from error
    return max(codes)
