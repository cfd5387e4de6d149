"""Render pages from templates with a shared style sheet and a few formatting filters."""

from __future__ import annotations

import importlib.resources
from typing import Any

import jinja2
from markupsafe import Markup


def render(name: str, *, autoescape: bool, **context: Any) -> str:
    """Render `templates/<name>`; `style` is always available. A missing variable is an error."""
    environment = jinja2.Environment(
        autoescape=autoescape, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"duration": duration_text, "points": _points_text, "cell": _markdown_cell}
    return environment.from_string(_read(name)).render(style=Markup(_read("style.css")), **context)


def _read(name: str) -> str:
    return importlib.resources.files(__package__).joinpath("templates", name).read_text(encoding="utf-8")


def duration_text(seconds: float | None) -> str:
    """`41 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _points_text(difference: float) -> str:
    """A difference of rates in percentage points, with sign: `+31`, `−4`, `0`."""
    points = round(100 * difference)
    return f"+{points}" if points > 0 else f"−{-points}" if points < 0 else "0"


def _markdown_cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
