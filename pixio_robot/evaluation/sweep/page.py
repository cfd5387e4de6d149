"""Write a sweep as `sweep.html`, `.svg` (for papers), `.md`, `.csv` and `.json`."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from pixio_robot.evaluation.report.figures import interval_svg
from pixio_robot.evaluation.report.findings import interval_text, p_text
from pixio_robot.evaluation.report.templating import render, write_page
from pixio_robot.evaluation.sweep.collect import SweepRow, format_setting
from pixio_robot.evaluation.sweep.contrast import Contrast, find_rows, welch_contrast
from pixio_robot.evaluation.sweep.figure import sweep_figure
from pixio_robot.evaluation.sweep.task_means import TaskMean, average_tasks

_COLUMNS = ("task", "label", "policy", "runs", "successes", "episodes", "rate", "low", "high", "interval")


def write_sweep(rows: Sequence[SweepRow], title: str, page: Path, against: str | None = None) -> Path:
    """Write `page` (an .html file), and .svg, .md, .csv and .json of the same name beside it; returns `page`.

    `against`: name or label of the row that the others are compared with. Raises UserError if there is none.
    """
    references = {} if against is None else {row.task: row for row in find_rows(rows, against)}
    contrasts = {
        id(row): welch_contrast(row, references[row.task])
        for row in rows
        if row.task in references and row is not references[row.task]
    }
    context = {
        "title": title,
        "rows": rows,
        "means": average_tasks(rows),
        "varied": list(rows[0].settings),
        "references": references,
        "contrast_of": lambda row: contrasts.get(id(row)),
        "interval_text": interval_text,
        "p_text": p_text,
        "format_setting": format_setting,
        "interval_svg": _interval_svg,
    }
    beside = {
        ".svg": sweep_figure(rows),
        ".md": render("sweep.md.j2", autoescape=False, **context),
        ".csv": _csv(rows, [contrasts.get(id(row)) for row in rows], against),
        ".json": _json(rows, [contrasts.get(id(row)) for row in rows], against),
    }
    html = render("sweep.html.j2", autoescape=True, **context)
    write_page(page, html, {page.with_suffix(suffix): text for suffix, text in beside.items()})
    return page


def _interval_svg(of: SweepRow | TaskMean) -> Markup:
    return Markup(interval_svg(of.low, of.rate, of.high, of.rates if len(of.rates) > 1 else ()))


def _json(rows: Sequence[SweepRow], contrasts: Sequence[Contrast | None], against: str | None) -> str:
    values = [
        dataclasses.asdict(row)
        | {"name": row.name, "against": against, "contrast": None if contrast is None else dataclasses.asdict(contrast)}
        for row, contrast in zip(rows, contrasts, strict=True)
    ]
    return json.dumps(values, indent=2) + "\n"


def _csv(rows: Sequence[SweepRow], contrasts: Sequence[Contrast | None], against: str | None) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    varied = list(rows[0].settings)
    fields = [field.name for field in dataclasses.fields(Contrast)] if against is not None else []
    writer.writerow([*_COLUMNS, "training_seeds", *varied, *(f"{name} against {against}" for name in fields)])
    for row, contrast in zip(rows, contrasts, strict=True):
        values = [len(row.runs) if column == "runs" else getattr(row, column) for column in _COLUMNS]
        seeds = " ".join(str(seed) for seed in row.training_seeds)
        compared = [getattr(contrast, name, "") for name in fields]
        writer.writerow([*values, seeds, *(row.settings[key] for key in varied), *compared])
    return text.getvalue()
