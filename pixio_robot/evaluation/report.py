"""`report.html`, `report.md` and `results.csv` from a run directory."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pixio_robot.evaluation.report_data import ReportInputs, collect_inputs
from pixio_robot.evaluation.report_figures import interval_svg, loss_svg
from pixio_robot.evaluation.report_findings import (
    caveats,
    comparison_tables,
    headlines,
    interval_text,
    p_text,
)
from pixio_robot.evaluation.report_media import clips, panels
from pixio_robot.evaluation.results import EvaluationSummary
from pixio_robot.evaluation.templating import render
from pixio_robot.files import atomic_file

MEDIA_BYTES = 6_000_000
"""Bound on the videos' share of the report, so that it stays small enough to mail."""
_CSV_COLUMNS = [
    field.name for field in dataclasses.fields(EvaluationSummary) if field.name not in ("seeds", "versions")
]


def build_report(run_dir: Path, out: Path) -> Path:
    """Write `out` (an .html file), and `report.md` and `results.csv` beside it; returns `out`.

    The page is one file that needs no network. Raises UserError as `collect_inputs` does.
    """
    inputs = collect_inputs(run_dir)
    page = render_html(inputs)
    markdown = render_markdown(inputs)
    table = render_csv(inputs)
    for path, text in ((out.parent / "report.md", markdown), (out.parent / "results.csv", table), (out, page)):
        with atomic_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return out


def render_html(inputs: ReportInputs) -> str:
    return render(
        "report.html.j2",
        autoescape=True,
        **_context(inputs),
        panels=panels(inputs.panels),
        clips=clips(inputs.evaluations, MEDIA_BYTES),
        interval_svg=lambda low, rate, high: Markup(interval_svg(low, rate, high)),
        loss_svg=lambda curve, label: Markup(loss_svg(curve, str(Markup.escape(label)))),
    )


def render_markdown(inputs: ReportInputs) -> str:
    return render("report.md.j2", autoescape=False, **_context(inputs))


def render_csv(inputs: ReportInputs) -> str:
    """One row per finished evaluation, best first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    for evaluation in inputs.evaluations:
        writer.writerow([getattr(evaluation.summary, column) for column in _CSV_COLUMNS])
    return text.getvalue()


def _context(inputs: ReportInputs) -> dict[str, Any]:
    return {
        "inputs": inputs,
        "title": inputs.run_dir.resolve().name,
        "headlines": headlines(inputs),
        "tables": comparison_tables(inputs),
        "caveats": caveats(inputs),
        "facts": {
            title: _facts(value)
            for title, value in (
                ("Frames", inputs.frames),
                ("Demonstrations", inputs.demos),
                ("Environment", inputs.environment),
            )
        },
        "total_seconds": sum(stage.seconds or 0.0 for stage in inputs.stages if not stage.skipped),
        "versions": inputs.evaluations[0].summary.versions if inputs.evaluations else {},
        "intervals": ", ".join(sorted({evaluation.summary.interval for evaluation in inputs.evaluations})),
        "interval_text": interval_text,
        "p_text": p_text,
    }


def _facts(value: Mapping[str, Any] | None, prefix: str = "") -> list[tuple[str, str]]:
    """A JSON object as rows of (name, text): nested objects flattened, long lists counted."""
    rows: list[tuple[str, str]] = []
    for key, item in (value or {}).items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(item, Mapping):
            rows += _facts(item, f"{name} · ")
        elif isinstance(item, list):
            rows.append((name, ", ".join(map(str, item)) if len(item) <= 8 else f"{len(item)} entries"))
        elif isinstance(item, bool) or not isinstance(item, int | float):
            rows.append((name, str(item)))
        else:
            rows.append((name, f"{item:,}" if isinstance(item, int) else f"{item:,.4g}"))
    return rows
