"""`sweep.html`, `.svg`, `.md`, `.csv` and `.json`: the rows of a sweep for people, for papers and for programs."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from pixio_robot.evaluation.report_figures import interval_svg
from pixio_robot.evaluation.report_findings import interval_text
from pixio_robot.evaluation.sweep import SweepRow, shown
from pixio_robot.evaluation.sweep_figure import sweep_figure
from pixio_robot.evaluation.templating import render
from pixio_robot.files import atomic_file

_COLUMNS = ("task", "label", "policy", "runs", "successes", "episodes", "rate", "low", "high", "interval")


def write_sweep(rows: Sequence[SweepRow], title: str, page: Path) -> Path:
    """Write `page` (an .html file), and .svg, .md, .csv and .json of the same name beside it; returns `page`."""
    context = {
        "title": title,
        "rows": rows,
        "varied": list(rows[0].settings),
        "interval_text": interval_text,
        "shown": shown,
        "interval_svg": lambda row: Markup(interval_svg(row.low, row.rate, row.high, row.rates)),
    }
    for path, text in (
        (page.with_suffix(".svg"), sweep_figure(rows)),
        (page.with_suffix(".md"), render("sweep.md.j2", autoescape=False, **context)),
        (page.with_suffix(".csv"), _csv(rows)),
        (page.with_suffix(".json"), json.dumps([dataclasses.asdict(row) for row in rows], indent=2) + "\n"),
        (page, render("sweep.html.j2", autoescape=True, **context)),
    ):
        with atomic_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return page


def _csv(rows: Sequence[SweepRow]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    varied = list(rows[0].settings)
    writer.writerow([*_COLUMNS, "training_seeds", *varied])
    for row in rows:
        values = [len(row.runs) if column == "runs" else getattr(row, column) for column in _COLUMNS]
        seeds = " ".join(str(seed) for seed in row.training_seeds)
        writer.writerow([*values, seeds, *(row.settings[key] for key in varied)])
    return text.getvalue()
