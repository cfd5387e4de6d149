"""Render the templates of reports, with a few formatting filters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixio_robot.errors import UserError, format_names
from pixio_robot.files import atomic_file
from pixio_robot.html_pages import template_environment

_MARK = '<p class="kind">pixio-robot '
"""In the head of every page, by which a later one knows that it may replace it."""


def render(name: str, *, autoescape: bool, **context: Any) -> str:
    """Render `templates/<name>`. A missing variable is an error."""
    environment = template_environment("pixio_robot.evaluation.report", autoescape=autoescape)
    environment.filters |= {"duration": duration_text, "points": _points_text, "cell": _markdown_cell}
    return environment.get_template(name).render(context)


def write_page(page: Path, html: str, beside: Mapping[Path, str]) -> None:
    """Write a page, and the files `beside` it with their texts, in place of those of an earlier page.

    Raises UserError if any of the files exists without an earlier page, because it is then someone else's."""
    if not (page.is_file() and _MARK in page.read_text(encoding="utf-8", errors="replace")):
        foreign = [path.name for path in (page, *beside) if path.exists()]
        if foreign:
            raise UserError(
                f"{page.parent} holds {format_names(foreign)}, not made by pixio-robot, which {page.name} and the "
                "files beside it would replace: move or rename what is there, or give another directory."
            )
    # The page comes first: it marks the others as replaceable, however this ends.
    for path, text in {page: html, **beside}.items():
        with atomic_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


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
