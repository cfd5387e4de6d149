"""Compose `key=value` arguments and YAML files into one typed configuration object.

Hydra does the composition; the schema is the dataclass that lives next to what it configures. A command module
calls `run(...)` with its schema; this file turns Hydra's errors into readable messages.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib.util
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

import pixio_robot
from pixio_robot.cli.elsewhere import ours, remark
from pixio_robot.cli.help import choices, help_text
from pixio_robot.cli.home_directory import expand_home
from pixio_robot.cli.stages import remember_command
from pixio_robot.errors import UserError, unknown_name

SWEEP_FILES = ["hydra.sweep.dir=${run}/sweeps/${now:%Y-%m-%d_%H-%M-%S}", "hydra.job.chdir=false"]


def config_directory() -> Path:
    """`configs/` of the checkout, or the copy inside an installed wheel."""
    package = Path(pixio_robot.__file__).parent
    checkout = package.parent / "configs"
    return checkout if checkout.is_dir() else package / "configs"


def _experiment_overrides(command: str, name: str) -> list[str]:
    """Translate `experiment=NAME` to Hydra overrides: NAME is a YAML file, or a directory with one file per command."""
    root = config_directory() / "experiment"
    if (root / f"{name}.yaml").is_file():
        return [f"+experiment={name}"]
    if (root / name).is_dir():
        return [f"+experiment/{name}={command}"] if (root / name / f"{command}.yaml").is_file() else []
    raise unknown_name("experiment", name, (path.stem for path in root.iterdir()))


def experiment_texts(command: str, words: Iterable[str]) -> list[str]:
    """Contents of the files that the experiments among `words` have for the command."""
    root = config_directory() / "experiment"
    names = [word.removeprefix("experiment=") for word in words if word.startswith("experiment=")]
    paths = [path for name in names for path in (root / f"{name}.yaml", root / name / f"{command}.yaml")]
    return [path.read_text() for path in paths if path.is_file()]


def _overrides(command: str, arguments: list[str]) -> list[str]:
    experiments = [a.removeprefix("experiment=") for a in arguments if a.startswith("experiment=")]
    rest = [a for a in arguments if not a.startswith("experiment=")]
    # Hydra rejects a key that a mapping does not contain yet, unless it is prefixed with ++.
    mappings = tuple(key + end for key in _mappings(_stored_schema(command)) for end in ("=", "."))
    words = [f"++{word}" if mappings and word.startswith(mappings) else word for word in rest]
    return [*(word for name in experiments for word in _experiment_overrides(command, name)), *words]


def _stored_schema(command: str) -> Any:
    return ConfigStore.instance().load(f"{command}_schema.yaml").node


def _mappings(node: Any, prefix: str = "") -> list[str]:
    """The dotted keys of all settings that are mappings with user-defined keys."""
    found = []
    for key in node if isinstance(node, DictConfig) and not (node._is_none() or node._is_missing()) else ():
        inside = node._get_node(key)
        if isinstance(inside, DictConfig) and OmegaConf.get_type(inside) is dict:
            found.append(f"{prefix}{key}")
        found += _mappings(inside, f"{prefix}{key}.")
    return found


def _keys(node: Any, prefix: str = "") -> list[str]:
    """Every dotted key of a composed configuration."""
    found = []
    if isinstance(node, DictConfig):
        for key in node:
            found += [f"{prefix}{key}", *_keys(node._get_node(key), f"{prefix}{key}.")]
    return found


def _explain(error: Exception, command: str, valid_keys: list[str], words: Sequence[str]) -> UserError:
    """Turn Hydra's chain of exceptions into one UserError; `words` are the arguments as typed."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    for link in chain:
        if isinstance(link, UserError):
            return link
    text = str(chain[-1]).split("\n    ")[0]
    lines = str(chain[-1]).splitlines()
    full_key = next((line.split(":", 1)[1].strip() for line in lines if line.strip().startswith("full_key:")), "")
    first = lines[0] if lines else type(error).__name__
    unknown = re.search(r"Key '([^']+)' (?:is )?not in", first)
    if unknown:
        key = full_key or unknown.group(1)
        siblings = sorted({k for k in valid_keys if k.rpartition(".")[0] == key.rpartition(".")[0]})
        owner = getattr(chain[-1], "object_type", None)
        fields = sorted(field.name for field in dataclasses.fields(owner)) if dataclasses.is_dataclass(owner) else []
        if not {*fields} <= {k.rpartition(".")[2] for k in siblings}:
            # Inside a list item, such as students=[{encoder: {...}}], which has no keys in `valid_keys`.
            key, siblings, valid_keys = key.rpartition(".")[2], fields, fields
        # Hydra reports only the first unknown part, such as `dataloader` of dataloader.batch_size.
        typed = next((word.partition("=")[0] for word in words if word.startswith(f"{key}.")), key)
        known = ours(typed, valid_keys)
        closest = [known] if known else difflib.get_close_matches(key, valid_keys, n=1, cutoff=0.5)
        hint = f" Did you mean {closest[0]!r}{remark(typed)}?" if closest else ""
        return UserError(f"`{command}` has no setting {key!r}.{hint} Valid settings here: {', '.join(siblings)}.")
    unknown_group = re.search(r"Could not override '([^']+)'", first)
    if unknown_group:
        hint = next((f" {line}" for line in lines if line.startswith("Did you mean")), "")
        return UserError(f"`{command}` has no group {unknown_group.group(1)!r}.{hint}")
    unparsed = re.search(r"Error parsing override '([^']+)'", first)
    word = error.override if isinstance(error, OverrideParseException) else unparsed and unparsed.group(1)
    if word and (flag := re.fullmatch(r"--([\w.]+)(=.*)?", str(word))):
        known = ours(flag[1], valid_keys) or (flag[1] if flag[1] in valid_keys else "")
        hint = f": {known}=..." if known else f" (`{command} --help` lists all settings)"
        return UserError(
            f"`{command}` has no option --{flag[1]}; settings are written key=value, without dashes{hint}."
        )
    if word:
        return UserError(
            f"`{command}` cannot parse {word!r}: settings are written key=value; quote a value that contains spaces, "
            "brackets, braces or commas: key=\"'value'\"."
        )
    several = re.search(r"Ambiguous value for argument '([^=]+)=([^']+)'", first)
    if several:
        key, values = several.groups()
        return UserError(
            f"{key} takes one value. Add -m to run `{command}` with each of {values}, or pass a list: [{values}]."
        )
    if "is not a ListConfig" in first and full_key:
        return UserError(f"{full_key} takes a list: {full_key}=[A] or {full_key}=[A,B].")
    if "Cannot merge DictConfig with" in first and full_key:
        return UserError(f"{full_key} takes a mapping: {full_key}='{{KEY: VALUE}}'.")
    missing_group = re.search(r"Could not find '([^']+)'", text)
    if missing_group and "/" in missing_group.group(1):
        group, _, name = missing_group.group(1).rpartition("/")
        return unknown_name(group, name, choices(config_directory(), group))
    where = f" (setting {full_key!r})" if full_key else ""
    return UserError(f"{first}{where}")


def load(command: str, schema: type, arguments: list[str]) -> Any:
    """Compose `configs/<command>.yaml` with `arguments` into an instance of `schema`."""
    with _explained(command, schema, arguments):
        return to_dataclass(_composed(command, arguments))


def _composed(command: str, arguments: list[str], **options: Any) -> DictConfig:
    try:
        return hydra.compose(command, _overrides(command, arguments), **options)
    except (AttributeError, AssertionError) as error:
        # OmegaConf 2.3 fails this way for a setting inside a null value, which only occurs in list items.
        inside = [word for word in arguments if re.match(r"[\w.]+\.\d+\.", word)]
        if not inside:
            raise
        raise UserError(
            f"`{command}` cannot set {' '.join(inside)}: the setting that contains it is null. Set the whole list "
            "instead, such as students=[{encoder: {size: small}, mask: {ratio: 0.5}}]."
        ) from error


@contextlib.contextmanager
def _explained(command: str, schema: type, words: list[str]) -> Iterator[None]:
    """Set up Hydra for `command`, and turn its exceptions into UserErrors."""
    ConfigStore.instance().store(name=f"{command}_schema", node=schema)
    with hydra.initialize_config_dir(str(config_directory()), version_base="1.3"):
        try:
            yield
        except (HydraException, OmegaConfBaseException) as error:
            raise _explain(error, command, _valid_keys(command, words), words) from error


def _valid_keys(command: str, words: list[str]) -> list[str]:
    """All settings that exist with the config groups chosen in `words`, or by default if those do not compose."""
    chosen = [word for word in words if (config_directory() / word.partition("=")[0]).is_dir()]
    for choice in (chosen, []):
        with contextlib.suppress(HydraException, OmegaConfBaseException, UserError):
            return _keys(_composed(command, choice))
    return []


def to_dataclass(composed: DictConfig) -> Any:
    missing = sorted(OmegaConf.missing_keys(composed))
    if missing:
        raise UserError(
            f"{missing[0]!r} is required: set {missing[0]}=... on the command line or in an experiment file."
        )
    OmegaConf.resolve(composed)
    expand_home(composed)
    _refuse_infinite(OmegaConf.to_container(composed, enum_to_str=True))
    return OmegaConf.to_object(composed)


def _refuse_infinite(value: Any, key: str = "") -> None:
    """Reject infinity and NaN: no setting has a use for them, and JSON, in which settings are stored, has neither."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in inside:
        _refuse_infinite(item, f"{key}.{name}".lstrip("."))
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{key} = {value} must be a finite number.")


def run(command: str, schema: type, function: Callable[[Any], int], arguments: list[str]) -> int:
    """Entry point of every command: help, a single run, or a Hydra sweep (`-m`, with any launcher)."""
    if "-h" in arguments or "--help" in arguments:
        print(_help(command, schema, [word for word in arguments if not word.startswith("-")]))
        return 0
    if "-m" in arguments or "--multirun" in arguments:
        return _sweep(command, schema, function, arguments)
    return function(load(command, schema, arguments))


def _help(command: str, schema: type, words: list[str]) -> str:
    with _explained(command, schema, words):
        composed = _composed(command, words, return_hydra_config=True)
    chosen = dict(composed.hydra.runtime.choices)
    with open_dict(composed):
        del composed["hydra"]
    return help_text(command, schema, words, composed, chosen, config_directory())


def _sweep(command: str, schema: type, function: Callable[[Any], int], arguments: list[str]) -> int:
    """One run per combination of the comma-separated values; returns the highest exit code."""
    ConfigStore.instance().store(name=f"{command}_schema", node=schema)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions reach main() instead of Hydra's own handler
    codes = [0]
    launcher = next((word for word in arguments if word.startswith("hydra/launcher=")), "")
    if any(name in launcher for name in ("slurm", "submitit")) and importlib.util.find_spec("submitit") is None:
        raise UserError(f"{launcher} needs submitit: pip install 'pixio-robot[slurm]'.")

    def job(composed: DictConfig) -> None:
        remember_command([command, *arguments])  # a launcher may run this in another process
        codes.append(function(to_dataclass(composed)))

    wrapped = hydra.main(version_base="1.3", config_path=str(config_directory()), config_name=command)(job)
    words = [word for word in arguments if word not in ("-m", "--multirun")]
    # Hydra's parser accepts its flag only before the overrides. Hydra's own files go next to the results.
    sys.argv = [f"pixio-robot {command}", "-m", *_overrides(command, [*SWEEP_FILES, *words])]
    try:
        wrapped()
    except (HydraException, OmegaConfBaseException) as error:
        raise _explain(error, command, [], words) from error
    return max(codes)
