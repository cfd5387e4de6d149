"""A sweep as one figure for a paper: a standalone SVG, always black on white."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from html import escape

from pixio_robot.evaluation.report.findings import interval_text
from pixio_robot.evaluation.sweep.collect import SweepRow

_PLOT, _VALUES, _ROW, _LINE, _MARGIN = 320, 132, 24, 14, 14
_LETTERS = 48
"""Maximum characters of a name per line."""
_CHARACTER = 6.4
"""Width of a character at 12 px, slightly overestimated."""
_BLUE, _SOFT, _GRID = "#0b6e8f", "#5c666e", "#d4d9dc"


def sweep_figure(rows: Sequence[SweepRow]) -> str:
    """Rates as dots, 95 % intervals as bars, and each trained policy as a tick; one panel per task."""
    left = _MARGIN + _CHARACTER * max(len(line) for row in rows for line in _lines(row)) + 10
    width = left + _PLOT + _VALUES
    parts: list[str] = []
    top = 0.0
    for task, group in itertools.groupby(rows, key=lambda row: row.task):
        parts.append(_text(left, top + 20, task, weight="bold"))
        top += 32
        drawn = list(group)
        heights = [_ROW + _LINE * (len(_lines(row)) - 1) for row in drawn]
        bottom = top + sum(heights)
        for percent in (0, 25, 50, 75, 100):
            x = left + _PLOT * percent / 100
            parts.append(_line(x, top, x, bottom, _GRID, 1))
            parts.append(
                _text(x, bottom + 15, f"{percent} %" if percent in (0, 100) else f"{percent}", "middle", _SOFT)
            )
        for row, height in zip(drawn, heights, strict=True):
            parts += _row(row, left, top + height / 2)
            top += height
        top = bottom + 26
    parts.append(_text(left + _PLOT / 2, top + 4, "success rate", "middle", _SOFT))
    height = top + 14
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="Helvetica, Arial, sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{"".join(parts)}</svg>\n'
    )


def _lines(row: SweepRow) -> list[str]:
    return textwrap.wrap(row.name, _LETTERS, break_on_hyphens=False)


def _row(row: SweepRow, left: float, y: float) -> list[str]:
    def x(rate: float) -> float:
        return left + _PLOT * rate

    lines = _lines(row)
    first = y + 4 - _LINE * (len(lines) - 1) / 2
    parts = [_text(left - 10, first + _LINE * index, line, "end") for index, line in enumerate(lines)]
    parts.append(_line(x(row.low), y, x(row.high), y, _BLUE, 2))
    if len(row.rates) > 1:
        parts += [_line(x(rate), y - 6, x(rate), y + 6, _SOFT, 1) for rate in row.rates]
    parts.append(f'<circle cx="{x(row.rate):.1f}" cy="{y:.1f}" r="4" fill="{_BLUE}"/>')
    parts.append(_text(left + _PLOT + 14, y + 4, f"{100 * row.rate:.1f} % ({interval_text(row.low, row.high)})"))
    return parts


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start", colour: str = "#000", weight: str = "normal") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="{colour}" font-weight="{weight}">{escape(text)}</text>'
