"""User-facing errors: one sentence that says what is wrong and how to fix it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

MAX_LISTED = 4
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|\r(?!\n)")
"""All but tabs and ends of lines."""


class UserError(Exception):
    """Bad input. The command line prints the message alone and exits with code 2."""


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> UserError:
    """An error for an unknown name that suggests the closest match and lists all valid choices."""
    choices = sorted(valid)
    closest = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    hint = f" Did you mean {closest[0]!r}?" if closest else ""
    return UserError(f"Unknown {kind} {name!r}.{hint} Valid choices: {', '.join(choices)}.")


def format_names(names: Sequence[object]) -> str:
    """The first few names, and the number of further ones."""
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(map(str, names[:MAX_LISTED])) + more


def printable(text: str) -> str:
    """`text` with a ? for each control character: those in a stranger's file could rewrite the terminal."""
    return _CONTROL.sub("?", text)
