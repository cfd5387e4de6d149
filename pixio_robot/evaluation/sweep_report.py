"""`sweep.html`, `sweep.md`, `sweep.csv` and `sweep.json`: the rows of a sweep for people and for programs."""

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
from pixio_robot.evaluation.sweep import SweepRow
from pixio_robot.evaluation.templating import render
from pixio_robot.files import atomic_file

_COLUMNS = ("task", "label", "policy", "runs", "successes", "episodes", "rate", "low", "high", "interval")


def write_sweep(rows: Sequence[SweepRow], title: str, directory: Path) -> Path:
    """Write the four files into `directory` and return the path of the page."""
    context = {
        "title": title,
        "rows": rows,
        "varied": list(rows[0].settings),
        "interval_text": interval_text,
        "interval_svg": lambda low, rate, high: Markup(interval_svg(low, rate, high)),
    }
    page = directory / "sweep.html"
    for path, text in (
        (directory / "sweep.md", render("sweep.md.j2", autoescape=False, **context)),
        (directory / "sweep.csv", _csv(rows)),
        (directory / "sweep.json", json.dumps([dataclasses.asdict(row) for row in rows], indent=2) + "\n"),
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
