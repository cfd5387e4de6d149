"""What a setting takes that was given another kind of value, from the words of OmegaConf's error."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pixio_robot.choice import Choice
from pixio_robot.cli.config.help import group_options
from pixio_robot.cli.config.overrides import config_directory
from pixio_robot.errors import unknown_name

_TAKES = {
    r"Value '(?P<value>.*)' of type '\w+' could not be converted to Integer": "{key}={value} must be an integer.",
    r"Value '(?P<value>.*)' of type '\w+' could not be converted to Float": "{key}={value} must be a number.",
    r"Value '(?P<value>.*)' is not a valid bool": "{key}={value} must be true or false.",
    r"Cannot convert '\w+' to string: '(?P<value>.*)'": "{key} takes one text, not {value}.",
    r"field '.*' is not Optional": "{key} cannot be null.",
    r"is not a ListConfig, list or tuple": "{key} takes a list: {key}=[A] or {key}=[A,B].",
    r"Cannot assign \w+ to Dict": "{key} takes a mapping: {key}='{{KEY: VALUE}}'.",
}


def explain_wrong_value(key: str, first: str, lines: Sequence[str], valid_keys: Sequence[str]) -> str:
    """What `key` takes; empty for errors about something else. `first`: what was wrong; `lines`: all of the error."""
    for pattern, words in _TAKES.items():
        if match := re.search(pattern, first):
            return words.format(key=key, **match.groupdict())
    if option := re.search(r"Invalid value '(.*)', expected one of \[(.*)\]", first):
        names = option[2].split(", ")
        if any(names == list(kind.__members__) for kind in Choice.__subclasses__()):
            names = [name.lower() for name in names]
        return str(unknown_name(key, option[1], names))
    if option := re.search(r"Value (.*) \(\w+\) is not a valid input for <enum '(\w+)'>", first):
        kinds = [kind for kind in Choice.__subclasses__() if kind.__name__ == option[2]]
        return str(unknown_name(key, option[1], [name.lower() for name in kinds[0].__members__])) if kinds else ""
    if "Cannot merge DictConfig with" in first:
        return _explain_merge(key, lines, valid_keys)
    if group := re.search(r"is not a subclass of \w+\. value: (.*)", first):
        return _explain_group(key, group[1], valid_keys)
    return ""


def _explain_merge(key: str, lines: Sequence[str], valid_keys: Sequence[str]) -> str:
    """A list was given for a mapping or for settings, or a mapping for a list."""
    if any(re.search(r"reference_type=.*\bList\[", line) for line in lines):
        return f"{key} takes a list: {key}=[A] or {key}=[A,B]."
    return _explain_group(key, "", valid_keys) or f"{key} takes a mapping: {key}='{{KEY: VALUE}}'."


def _explain_group(key: str, value: str, valid_keys: Sequence[str]) -> str:
    """A value was given for a group of settings; empty if there are none inside."""
    inside = [name for name in valid_keys if name.rpartition(".")[0] == key]
    if not inside:
        return ""
    group = key.rpartition(".")[2]
    if value in group_options(config_directory(), group):
        return f"{key} is a group of settings: choose one with {group}@{key}={value}."
    hint = f" Did you mean {key}.name={value}?" if value and f"{key}.name" in inside else ""
    return f"{key} is a group of settings: {', '.join(inside)}.{hint}"
