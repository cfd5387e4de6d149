"""Turn Hydra's and OmegaConf's chains of exceptions into one readable sentence."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.errors import OverrideParseException

from pixio_robot.cli.config.foreign_settings import equivalent_note, find_equivalent_setting
from pixio_robot.cli.config.help import group_options
from pixio_robot.cli.config.overrides import config_directory
from pixio_robot.cli.config.value_errors import explain_wrong_value
from pixio_robot.errors import UserError, unknown_name

_UNQUOTABLE = re.compile(r"[^A-Za-z0-9_\s/.,:\[\]{}\"'$%*@?|+\\-]")
"""Characters that Hydra does not read outside of quotes."""


def to_user_error(error: Exception, command: str, valid_keys: list[str], words: Sequence[str]) -> UserError:
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
    composing = re.match(r"In '([^']+)': \w+ raised while composing config:", first)
    config_file = _config_file_note(command, composing and composing[1])
    if composing and len(lines) > 1:
        first = lines[1]
    unknown = re.search(r"Key '([^']+)' (?:is )?not in", first)
    if unknown:
        owner = getattr(chain[-1], "object_type", None)
        return _unknown_key(command, full_key or unknown.group(1), owner, valid_keys, words, config_file)
    unknown_group = re.search(r"Could not override '([^']+)'", first)
    if unknown_group:
        hint = next((f" {line}" for line in lines if line.startswith("Did you mean")), "")
        return UserError(f"`{command}` has no group {unknown_group.group(1)!r}.{hint}")
    unparsed = re.search(r"Error parsing override '([^']+)'", first)
    word = error.override if isinstance(error, OverrideParseException) else unparsed and unparsed.group(1)
    if word:
        return _unparsable_word(command, str(word), valid_keys)
    several = re.search(r"Ambiguous value for argument '([^=]+)=([^']+)'", first)
    if several:
        key, values = several.groups()
        return UserError(
            f"{key} takes one value. Add -m to run `{command}` with each of {values}, or pass a list: [{values}]."
        )
    if full_key and (explained := explain_wrong_value(full_key, first, lines, valid_keys)):
        return UserError(f"{explained}{config_file}")
    missing_group = re.search(r"Could not find '([^']+)'", text)
    if missing_group and "/" in missing_group.group(1):
        group, _, name = missing_group.group(1).rpartition("/")
        return unknown_name(group, name, group_options(config_directory(), group))
    where = f" (setting {full_key!r})" if full_key else ""
    return UserError(f"{first}{where}{config_file}")


def _unknown_key(
    command: str, key: str, owner: Any, valid_keys: Sequence[str], words: Sequence[str], config_file: str
) -> UserError:
    """There is no `key` in the dataclass `owner`, as far as Hydra says which it looked in."""
    siblings = sorted({k for k in valid_keys if k.rpartition(".")[0] == key.rpartition(".")[0]})
    fields = sorted(field.name for field in dataclasses.fields(owner)) if dataclasses.is_dataclass(owner) else []
    if not {*fields} <= {k.rpartition(".")[2] for k in siblings}:
        # Inside a list item, such as students=[{encoder: {...}}], which has no keys in `valid_keys`.
        key, siblings, valid_keys = key.rpartition(".")[2], fields, fields
    # Hydra reports only the first unknown part, such as `dataloader` of dataloader.batch_size.
    typed = next((word.partition("=")[0] for word in words if word.startswith(f"{key}.")), key)
    return unknown_setting(command, key, siblings, valid_keys, typed, config_file)


def _unparsable_word(command: str, word: str, valid_keys: Sequence[str]) -> UserError:
    """The word is no key=value: an option with dashes, or a value that Hydra would need quoted."""
    if flag := re.fullmatch(r"--([\w.]+)(=.*)?", word):
        known = find_equivalent_setting(flag[1], valid_keys) or (flag[1] if flag[1] in valid_keys else "")
        hint = f": {known}=..." if known else f" (`{command} --help` lists all settings)"
        return UserError(
            f"`{command}` has no option --{flag[1]}; settings are written key=value, without dashes{hint}."
        )
    strange = _UNQUOTABLE.search(word.partition("=")[2])
    why = f"{strange[0]!r}" if strange else "brackets, braces or commas that are not of a list or mapping"
    return UserError(
        f"`{command}` cannot parse {word!r}: settings are written key=value; quote a text that contains {why}: "
        "key=\"'text'\", in a list key=\"['text']\"."
    )


def unknown_setting(
    command: str,
    key: str,
    siblings: Sequence[str],
    valid_keys: Sequence[str] = (),
    typed: str = "",
    where: str = "",
) -> UserError:
    """There is no setting `key`, of which `typed` is the whole word; `siblings` are those at its place, `valid_keys`
    all. `where`: the file that has it."""
    everywhere, typed = valid_keys or siblings, typed or key
    known = find_equivalent_setting(typed, everywhere)
    closest = [known] if known else difflib.get_close_matches(key, everywhere, n=1, cutoff=0.5)
    hint = f" Did you mean {closest[0]!r}{equivalent_note(typed)}?" if closest else ""
    return UserError(f"`{command}` has no setting {key!r}{where}.{hint} Valid settings here: {', '.join(siblings)}.")


def _config_file_note(command: str, config: str | None) -> str:
    """The file of a config that Hydra named, and which command it says that it is for."""
    if config is None:
        return ""
    path = config_directory() / f"{config}.yaml"
    header = re.search(
        r"^# Command: (?:pixio-robot|torchrun .*pixio_robot.cli.main) (\w+)", _read_if_exists(path), re.MULTILINE
    )
    meant = f", which is for `{header[1]}`" if header and header[1] not in (command, "quickstart") else ""
    return f" (in {config}.yaml{meant})"


def _read_if_exists(path: Path) -> str:
    return path.read_text() if path.is_file() else ""
