"""`pixio-robot COMMAND --help`: all settings with their values and help texts, config groups, and experiments."""

from __future__ import annotations

import dataclasses
import enum
import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from omegaconf import DictConfig, ListConfig, OmegaConf

from pixio_robot.choice import option_name
from pixio_robot.cli.config.examples import example_lines
from pixio_robot.cli.config.field_help import field_help, nested_field_help, paragraphs

WIDEST, NARROWEST, USUAL_WIDTH = 120, 80, 110
LONGEST_HEAD = 36
"""If a key and its value are longer than this, the help text starts on the next line."""
LISTED_FIRST = ("source", "data", "selection", "checkpoint", "teacher", "out", "run", "overwrite")
"""Settings listed first: inputs and outputs, which newcomers look for."""


@dataclasses.dataclass(frozen=True)
class Line:
    """One setting, or the heading of a block of settings, whose `value` is None."""

    key: str
    """Dotted key, as on the command line."""
    value: str | None
    explanation: str
    """Help text, one paragraph per line."""

    @property
    def head(self) -> str:
        depth, name = self.key.count("."), self.key.rpartition(".")[2]
        return f"{'  ' * (depth + 1)}{name}:" + ("" if self.value is None else f" {self.value}")


def help_text(
    command: str, schema: type, words: list[str], composed: DictConfig, chosen: Mapping[str, str], configs: Path
) -> str:
    """The full help text. `composed`: the configuration for `words` (key=value); `chosen`: group -> selected option."""
    width = max(NARROWEST, min(shutil.get_terminal_size((USUAL_WIDTH, 0)).columns, WIDEST))
    lines = list(setting_lines(composed))
    inner = next((line for line in lines if line.key.count(".") == 1 and line.value is not None), None)
    intro = [
        "Settings with their default values; ??? marks required settings.",
        *([f"Use dots for nested settings: {inner.key}={inner.value}."] if inner else []),
    ]
    parts = [
        *(textwrap.fill(part, width) for part in paragraphs(schema)),
        " ".join(["usage: pixio-robot", command, *words, "key=value ..."]),
        "\n".join(example_lines(command)),
        "\n".join(textwrap.wrap(" ".join(intro), width)),
        "\n".join(_setting_table(lines, width)),
        "\n".join(_group_lines(configs, command, chosen, width)),
        "\n".join(_experiment_lines(configs / "experiment", command, width)),
    ]
    return "\n\n".join(filter(None, parts))


def setting_lines(node: DictConfig | ListConfig, prefix: str = "") -> Iterator[Line]:
    """All settings below a node; within each block, plain settings come before nested blocks."""
    schema, children = _schema(node), _children(node)

    def order(key: str) -> tuple[bool, int]:
        return _is_block(children[key]), LISTED_FIRST.index(key) if not prefix and key in LISTED_FIRST else len(
            LISTED_FIRST
        )

    for key in sorted(children, key=order):
        child = children[key]
        text = "" if schema is None else field_help(schema, key)
        if _is_block(child):
            # The dataclass of a config group depends on the selected option, so its docstring is read from the node.
            kind = _schema(child)
            yield Line(f"{prefix}{key}", None, text or ("" if kind is None else "".join(paragraphs(kind)[:1])))
            yield from setting_lines(child, f"{prefix}{key}.")
        else:
            inside = [] if schema is None or not isinstance(child, DictConfig) else nested_field_help(schema, key)
            yield Line(f"{prefix}{key}", format_value(child), "\n".join([text, *inside]))


def _children(node: DictConfig | ListConfig) -> dict[str, Any]:
    if isinstance(node, DictConfig):
        return {str(key): node._get_node(key) for key in node}
    return {str(index): node._get_node(index) for index in range(len(node))}


def _schema(node: Any) -> type | None:
    """The dataclass of a node, if it has one."""
    kind = OmegaConf.get_type(node) if isinstance(node, DictConfig) else None
    return kind if dataclasses.is_dataclass(kind) else None


def _is_block(node: Any) -> bool:
    return _has_children(node) and (isinstance(node, DictConfig) or any(map(_is_block, _children(node).values())))


def _has_children(node: Any) -> bool:
    """Whether the node is a list or non-empty mapping with an actual value."""
    is_container = isinstance(node, ListConfig) or (isinstance(node, DictConfig) and len(node) > 0)
    return is_container and not (node._is_none() or node._is_missing() or node._is_interpolation())


def format_value(node: Any) -> str:
    """A value in command-line syntax; interpolations are left unresolved."""
    if _has_children(node):
        return f"[{','.join(map(format_value, _children(node).values()))}]"
    value = node._value()
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, enum.Enum):
        return option_name(value)
    return "''" if value == "" else str(value)


def _setting_table(lines: list[Line], width: int) -> Iterator[str]:
    """Keys and values on the left, help texts in a column on the right."""
    column = 2 + max((len(line.head) for line in lines if len(line.head) <= LONGEST_HEAD), default=0)
    was_inside = False
    for line in lines:
        if "." not in line.key and (line.value is None or was_inside):
            yield ""
        was_inside = "." in line.key
        comment = [text for part in line.explanation.split("\n") for text in _wrap(part, width - column - 2)]
        if len(line.head) > column - 2 or not comment:
            yield line.head
        else:
            yield f"{line.head:<{column}}# {comment.pop(0)}"
        for more in comment:
            yield f"{'':<{column}}# {more}"


def _group_lines(configs: Path, command: str, chosen: Mapping[str, str], width: int) -> Iterator[str]:
    """The config groups in the command's defaults list, except those derived from another group."""
    settings = OmegaConf.to_container(OmegaConf.load(configs / f"{command}.yaml"))
    assert isinstance(settings, dict)
    entries = [entry for entry in settings["defaults"] if isinstance(entry, dict)]
    groups = [(group, name) for entry in entries for group, name in entry.items() if "${" not in name]
    if groups:
        yield "Groups: presets of several settings, from configs/GROUP/NAME.yaml (*: selected)."
    for group, name in groups:
        directory, _, package = group.partition("@")
        options = group_options(configs, directory)
        if package:
            # The options are those of the group itself, used for another part of the command.
            yield from _wrapped(f"  {group}=NAME  ", ", ".join(options), width)
            continue
        yield f"  {group}=NAME"
        present = chosen.get(group, name)
        heads = [f"   {'*' if option == present else ' '} {option}" for option in options]
        yield from _two_columns(heads, list(options.values()), width)


def group_options(configs: Path, group: str) -> dict[str, str]:
    """Options of a config group -> one-sentence description: our files first, then options that other packages have
    registered in Hydra's store, recognised by their provider."""
    options = {path.stem: _title(path) for path in sorted((configs / group).glob("*.yaml"))}
    store = ConfigStore.instance()
    if store.get_type(group) is ObjectType.GROUP:
        for file in store.list(group):
            config = store.load(f"{group}/{file}")
            kind = _schema(config.node)
            if config.provider and kind is not None:
                title = _first_sentence("".join(paragraphs(kind)[:1]))
                options[file.removesuffix(".yaml")] = f"{title} ({config.provider})".strip()
    return options


def _experiment_lines(directory: Path, command: str, width: int) -> Iterator[str]:
    """Experiments for the command: files whose comment mentions it, and directories with a file for it."""
    says_so = re.compile(rf"(?:pixio-robot|pixio_robot\.cli\.main) {command} experiment=")
    titles = {}
    for path in sorted(directory.iterdir()):
        if path.suffix == ".yaml" and says_so.search(path.read_text()):
            titles[path.stem] = _title(path)
        elif (path / f"{command}.yaml").is_file():
            steps = path / "steps.yaml"
            titles[path.name] = _title(steps if steps.is_file() else path / f"{command}.yaml")
    if titles:
        yield "Experiments: experiment=NAME applies the settings of configs/experiment/NAME; other keys override them."
        yield from _two_columns([f"  {name}" for name in titles], list(titles.values()), width)


def _title(path: Path) -> str:
    """First sentence of the comment at the top of a configuration file; empty if there is none."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
    opening = []
    for line in lines:
        if not line.startswith("#") or re.match(r"# (Command|Cost|Result|Differs):", line):
            break
        opening.append(line.removeprefix("#").strip())
    return _first_sentence(" ".join(opening))


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.?]) (?=[A-Z`])", text)[0]


def _two_columns(heads: list[str], texts: list[str], width: int) -> Iterator[str]:
    column = max(map(len, heads)) + 2
    for head, text in zip(heads, texts, strict=True):
        yield from _wrapped(f"{head:<{column}}", text, width)


def _wrapped(head: str, text: str, width: int) -> list[str]:
    first, *rest = _wrap(text, width - len(head)) or [""]
    return [f"{head}{first}".rstrip(), *(f"{'':<{len(head)}}{line}" for line in rest)]


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
