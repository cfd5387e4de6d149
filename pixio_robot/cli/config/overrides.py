"""Translate the arguments of a command, as typed, to Hydra's overrides."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

import pixio_robot
from pixio_robot.errors import unknown_name

_KEY = r"\+{0,2}[\w./@:]+"
_INTERPOLATION = r"\$\{[^}]*\}"
_LISTS = set("[]{},")


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


def to_hydra_overrides(command: str, arguments: list[str]) -> list[str]:
    experiments = [a.removeprefix("experiment=") for a in arguments if a.startswith("experiment=")]
    rest = [a for a in arguments if not a.startswith("experiment=")]
    # Hydra rejects a key that a mapping does not contain yet, unless it is prefixed with ++.
    mappings = tuple(key + end for key in _mapping_keys(_stored_schema(command)) for end in ("=", "."))
    words = [_quote_if_needed(f"++{word}" if mappings and word.startswith(mappings) else word) for word in rest]
    return [*(word for name in experiments for word in _experiment_overrides(command, name)), *words]


def _stored_schema(command: str) -> Any:
    return ConfigStore.instance().load(f"{command}_schema.yaml").node


def _mapping_keys(node: Any, prefix: str = "") -> list[str]:
    """The dotted keys of all settings that are mappings with user-defined keys."""
    keys = []
    for key in node if isinstance(node, DictConfig) and not (node._is_none() or node._is_missing()) else ():
        inside = node._get_node(key)
        if isinstance(inside, DictConfig) and OmegaConf.get_type(inside) is dict:
            keys.append(f"{prefix}{key}")
        keys += _mapping_keys(inside, f"{prefix}{key}.")
    return keys


def _quote_if_needed(word: str) -> str:
    """The word as it is, unless only its value keeps Hydra from reading it: then that is quoted, for it is a text such
    as `runs/früh` or `it's`. Lists and mappings are not texts."""
    key, equals, value = word.partition("=")
    if not equals or not re.fullmatch(_KEY, key, re.ASCII) or _LISTS & set(re.sub(_INTERPOLATION, "", value)):
        return word
    # Text that begins with a quote was meant to be quoted to its end.
    if value.startswith(("'", '"')) or value.endswith("\\") or _is_parseable(word):
        return word
    escaped = value.replace("'", "\\'")
    return f"{key}='{escaped}'"


def _is_parseable(word: str) -> bool:
    try:
        OverridesParser.create().parse_override(word).value()
    except HydraException:
        return False
    return True
