"""Render the templates of reports, with a few formatting filters."""

from __future__ import annotations

from typing import Any

from pixio_robot.html_pages import template_environment


def render(name: str, *, autoescape: bool, **context: Any) -> str:
    """Render `templates/<name>`. A missing variable is an error."""
    environment = template_environment("pixio_robot.evaluation.report", autoescape=autoescape)
    environment.filters |= {"duration": duration_text, "points": _points_text, "cell": _markdown_cell}
    return environment.get_template(name).render(context)


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
