"""Write the page about a run directory, or about several, with its numbers beside it."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pixio_robot.evaluation.checkpoint_series import series_text
from pixio_robot.evaluation.report.data import ReportInputs
from pixio_robot.evaluation.report.evaluations import run_name
from pixio_robot.evaluation.report.figures import interval_svg, loss_svg, series_svg
from pixio_robot.evaluation.report.findings import (
    caveats,
    comparison_tables,
    headlines,
    held_out_text,
    interval_text,
    p_text,
)
from pixio_robot.evaluation.report.media import load_clips, load_panels
from pixio_robot.evaluation.report.templating import render, write_page
from pixio_robot.evaluation.results import EvaluationSummary

MEDIA_BYTES = 6_000_000
"""Limit on the total size of embedded videos, so that the report stays small enough to email."""
_CSV_COLUMNS = [
    field.name for field in dataclasses.fields(EvaluationSummary) if field.name not in ("seeds", "versions")
]


def write_report(inputs: ReportInputs, out: Path) -> Path:
    """Write `out` (an .html file) and a .md of the same name; returns `out`. Also a .csv and .json, which are called
    `results` or, for a comparison of several runs, like the page.

    The page is one self-contained file that needs no network access. Raises UserError as `write_page` does.
    """
    results = out.with_name(out.name if inputs.compared else "results.html")
    beside = {
        out.with_suffix(".md"): render_markdown(inputs),
        results.with_suffix(".csv"): render_csv(inputs),
        results.with_suffix(".json"): render_json(inputs),
    }
    write_page(out, render_html(inputs), beside)
    return out


def render_html(inputs: ReportInputs) -> str:
    return render(
        "report.html.j2",
        autoescape=True,
        **_context(inputs),
        panels=load_panels(inputs.panels),
        clips=load_clips(inputs.evaluations, MEDIA_BYTES),
        interval_svg=lambda low, rate, high: Markup(interval_svg(low, rate, high)),
        series_svg=lambda series: Markup(series_svg(series, str(Markup.escape(series.label)))),
        loss_svg=lambda curve, label: Markup(loss_svg(curve, str(Markup.escape(label)))),
    )


def render_markdown(inputs: ReportInputs) -> str:
    return render("report.md.j2", autoescape=False, **_context(inputs))


def render_csv(inputs: ReportInputs) -> str:
    """One row per finished evaluation, best first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_CSV_COLUMNS, "title", "directory"])
    for evaluation in inputs.evaluations:
        values = [getattr(evaluation.summary, column) for column in _CSV_COLUMNS]
        writer.writerow([*values, evaluation.title, evaluation.directory])
    return text.getvalue()


def render_json(inputs: ReportInputs) -> str:
    """All summaries, best first, with the paired comparisons and the checkpoint series."""
    value = {
        "evaluations": [
            dataclasses.asdict(evaluation.summary) | {"title": evaluation.title} for evaluation in inputs.evaluations
        ],
        "comparisons": [
            {
                "table": table.title,
                "first": row.first.title,
                "second": row.second.title,
                "verdict": row.verdict,
                "paired": dataclasses.asdict(row.paired) if row.paired is not None else None,
            }
            for table in comparison_tables(inputs)
            for row in table.rows
        ],
        "checkpoints": {name: dataclasses.asdict(series) for name, series in inputs.series.items()},
    }
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def _context(inputs: ReportInputs) -> dict[str, Any]:
    return {
        "inputs": inputs,
        "title": ", ".join(run_name(inputs.compared, path) for path in inputs.compared)
        or inputs.run_dir.resolve().name,
        "headlines": headlines(inputs),
        "tables": comparison_tables(inputs),
        "caveats": caveats(inputs),
        "facts": {
            title: _facts(value)
            for title, value in (
                ("Frames", inputs.frames),
                ("Demonstrations", inputs.demos),
                ("Where this report was made", inputs.environment),
            )
        },
        "total_seconds": sum(stage.seconds for stage in inputs.stages),
        "versions": inputs.evaluations[0].summary.versions if inputs.evaluations else {},
        "intervals": ", ".join(sorted({evaluation.summary.interval for evaluation in inputs.evaluations})),
        "series_text": series_text,
        "time_text": _time_text,
        "interval_text": interval_text,
        "p_text": p_text,
        "held_out_text": held_out_text,
    }


def _time_text(summary: EvaluationSummary) -> str:
    """`3.2 s (64 steps)`."""
    if summary.mean_steps_to_success is None:
        return "–"
    return f"{summary.mean_seconds_to_success:.1f} s ({summary.mean_steps_to_success:.0f} steps)"


def _facts(value: Mapping[str, Any] | None, prefix: str = "") -> list[tuple[str, str]]:
    """A JSON object as rows of (name, text): nested objects flattened, long lists and those of objects counted."""
    rows: list[tuple[str, str]] = []
    for key, item in (value or {}).items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(item, Mapping):
            rows += _facts(item, f"{name} · ")
        elif isinstance(item, list):
            told = len(item) <= 8 and not any(isinstance(entry, Mapping) for entry in item)
            rows.append((name, ", ".join(map(str, item)) if told else f"{len(item)}"))
        elif isinstance(item, bool) or not isinstance(item, int | float):
            rows.append((name, str(item) or "–"))
        else:
            rows.append((name, f"{item:,.4g}" if isinstance(item, float) and abs(item) < 1000 else f"{item:,.0f}"))
    return rows
