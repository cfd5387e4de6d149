"""What the source says of each setting: the docstring after a dataclass's field, and the names that it may hold."""

from __future__ import annotations

import ast
import dataclasses
import enum
import functools
import inspect
import re
import textwrap
import typing

from pixio_robot.choice import NAMES


@functools.cache
def explanation(schema: type, name: str) -> str:
    """One paragraph on the field `name` of the dataclass `schema`, as the command line spells things; may be empty.

    The docstring after the field, of the nearest class that has one; else that of the enumeration it is. What may stand
    there follows where the text does not name all of it.
    """
    fields = {field.name: field for field in dataclasses.fields(schema)}
    if name not in fields:
        return ""
    documented = (_docstrings(each).get(name, "") for each in schema.__mro__ if dataclasses.is_dataclass(each))
    text = next(filter(None, documented), "")
    names = list(fields[name].metadata.get(NAMES, ()))
    for kind in _types(schema, name):
        if issubclass(kind, enum.Enum):
            text = text or " ".join(paragraphs(kind))
            names += [member.name for member in kind]
    spoken_of = {word.strip("`.,:;()").lower() for word in text.split()}
    if any(choice.lower() not in spoken_of for choice in names):
        text = f"{text} One of {', '.join(names)}."
    return text.strip()


def explanations_inside(schema: type, name: str) -> list[str]:
    """Of the settings that the field `name` would have, did it hold its dataclass and not null."""
    kinds = [kind for kind in _types(schema, name) if dataclasses.is_dataclass(kind)]
    return [f"{field.name}: {explanation(kind, field.name)}" for kind in kinds for field in dataclasses.fields(kind)]


def paragraphs(kind: type) -> list[str]:
    """Those of a class's docstring; none where it is only what `dataclass` writes by itself."""
    text = inspect.cleandoc(kind.__dict__.get("__doc__") or "")
    return [] if text.startswith(f"{kind.__name__}(") else [_one_line(part) for part in text.split("\n\n") if part]


def _one_line(text: str) -> str:
    return re.sub(r"\bNone\b", "null", " ".join(text.split()))


def _types(schema: type, name: str) -> list[type]:
    """The types in a field's annotation."""
    hint = typing.get_type_hints(schema)[name]
    return [kind for kind in (hint, *typing.get_args(hint)) if isinstance(kind, type)]


@functools.cache
def _docstrings(schema: type) -> dict[str, str]:
    """Field -> the text right after it, of the fields that the class itself declares; nothing without its source."""
    try:
        source = inspect.getsource(schema)
    except (OSError, TypeError):  # a package may come without
        return {}
    (definition,) = ast.parse(textwrap.dedent(source)).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, after in zip(definition.body, definition.body[1:], strict=False):
        match field, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = _one_line(text)
    return found
