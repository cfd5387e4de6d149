"""`pixio-robot report`: a self-contained page for one run, a comparison of runs, or a sweep."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pixio_robot.cli.config.compose import run_command_line
from pixio_robot.cli.policy_directory import TRIALS
from pixio_robot.cli.provenance import describe_environment
from pixio_robot.cli.settings import RunSettings
from pixio_robot.cli.stages.fingerprint import fingerprint_content
from pixio_robot.cli.stages.stage import STAMP_SUFFIX
from pixio_robot.cli.stale_evaluations import find_stale_evaluations
from pixio_robot.errors import UserError, format_names
from pixio_robot.evaluation.checkpoint_series import SERIES
from pixio_robot.evaluation.report.data import Stage
from pixio_robot.evaluation.report.evaluations import EVALUATIONS
from pixio_robot.evaluation.results import SUMMARY
from pixio_robot.files import find_files, read_json


@dataclass(kw_only=True)
class ReportCommand(RunSettings):
    """Write a page with success rates and intervals, loss curves, reconstructions, videos and timings of a run."""

    compare: list[str] = field(default_factory=list)
    """Run directories to compare: their evaluations on one page, paired where they used the same seeds."""
    out: str | None = None
    """Output page of `compare` or `sweep`, with .md, .csv and .json next to it; null: comparison.html next to the first
    run, or sweep.html in the sweep directory."""
    sweep: str | None = None
    """Directory with many evaluations below it: write a table and a figure of all of them instead of a report
    (sweep.html, .svg, .md, .csv, .json)."""
    against: str | None = None
    """Label or name of a row of `sweep`, the baseline: adds the difference of every other row to it, with Welch's t
    interval over training seeds."""


def _read_stages(directory: Path) -> list[Stage]:
    """The commands that made the run, from their stamps."""
    stamps = [read_json(path) for path in find_files(directory, f"*{STAMP_SUFFIX}")]
    stamps.sort(key=lambda stamp: stamp["finished_at"])
    return [Stage(stage=stamp["stage"], command=stamp["command"], seconds=stamp["seconds"]) for stamp in stamps]


def _find_stale(directories: Sequence[Path]) -> list[Path]:
    """The evaluations below whose policy was trained anew, which are said to be left out."""
    # In a series of checkpoints, every one is an evaluation of its own.
    found = {
        path.parent for directory in directories for name in (SUMMARY, SERIES) for path in find_files(directory, name)
    }
    stale = find_stale_evaluations(sorted(found))
    if stale:
        print(f"report: left out {format_names(stale)}, whose policy was trained anew since: evaluate it again")
    return stale


def _sweep(directory: Path, out: Path, against: str | None) -> int:
    from pixio_robot.cli.trained_with import training_settings
    from pixio_robot.evaluation.sweep.collect import collect_sweep, find_unfinished
    from pixio_robot.evaluation.sweep.page import write_sweep

    unknown: list[Path] = []
    fingerprint = functools.cache(fingerprint_content)

    def settings_of(evaluation: Path) -> dict[str, Any]:
        settings = training_settings(evaluation, fingerprint)
        if settings is None:
            unknown.append(evaluation)
        return settings or {}

    # Trials during training are not repetitions of the evaluation after it.
    rows = collect_sweep(directory, settings_of, leave_out=[TRIALS], stale=_find_stale([directory]))
    page = write_sweep(rows, directory.resolve().name, out, against)
    for row in rows:
        print(f"{row.task}: {row.name}: {row.rate:.1%}, 95 % {row.low:.0%} to {row.high:.0%}, {row.interval}")
    if unfinished := find_unfinished(directory, leave_out=[TRIALS]):
        print(f"report: left out {format_names(unfinished)}, which have not finished")
    if unknown:
        print(
            f"report: the training settings of {len(unknown)} policies are unknown, such as that of {unknown[0]}: its "
            "NAME.stage.json is missing. They are grouped by label, method and encoder"
        )
    print(f"report: {page.resolve()}")
    return 0


def _compare(command: ReportCommand) -> int:
    from pixio_robot.evaluation.report.build import write_report
    from pixio_robot.evaluation.report.data import collect_comparison

    runs = [Path(run) for run in command.compare]
    if len(runs) < 2:
        raise UserError(f"compare={command.compare} needs at least two runs: compare=[runs/a,runs/b].")
    page = _page(command, runs[0].resolve().parent / "comparison.html")
    inputs = collect_comparison(runs, _find_stale([run / EVALUATIONS for run in runs]))
    print(f"report: {write_report(inputs, page).resolve()}")
    return 0


def _page(command: ReportCommand, otherwise: Path) -> Path:
    out = Path(command.out) if command.out is not None else otherwise
    if out.suffix != ".html":
        raise UserError(f"out={out} must end in .html.")
    return out


def _run(command: ReportCommand) -> int:
    from pixio_robot.evaluation.report.build import write_report
    from pixio_robot.evaluation.report.data import collect_inputs

    if command.compare and command.sweep is not None:
        raise UserError("report writes one page at a time: give compare= or sweep=, not both.")
    if command.compare and command.against is None:
        return _compare(command)
    if command.sweep is not None:
        return _sweep(Path(command.sweep), _page(command, Path(command.sweep) / "sweep.html"), command.against)
    if command.against is not None:
        raise UserError("against= names a row of a sweep: give it with sweep=DIR.")
    if command.out is not None:
        raise UserError("out= only applies to compare= and sweep=; the report of a run is always RUN/report.html.")
    directory = Path(command.run)
    if not directory.is_dir():
        raise UserError(
            f"There is no run directory {directory}: give run=DIR, the directory the other commands wrote to."
        )
    stale = _find_stale([directory / EVALUATIONS])
    inputs = collect_inputs(directory, stale, _read_stages(directory), describe_environment())
    path = write_report(inputs, directory / "report.html")
    missing = find_unshown_evaluations(directory)
    if missing:
        print(
            f"report: left out {format_names(missing)}, because a report only shows {directory}/evaluations; "
            f"compare=[RUN,RUN] and sweep={directory} show the evaluations of several runs"
        )
    print(f"report: {path.resolve()}")
    return 0


def find_unshown_evaluations(directory: Path) -> list[str]:
    """Evaluations below the directory that are outside the folder that the report shows."""
    unshown = []
    for path in find_files(directory, f"*{STAMP_SUFFIX}"):
        parts = path.relative_to(directory).parts
        if parts[0] != EVALUATIONS and TRIALS not in parts and read_json(path)["stage"] == "evaluate":
            unshown.append(str(path).removesuffix(STAMP_SUFFIX))
    return unshown


def main(arguments: list[str]) -> int:
    return run_command_line("report", ReportCommand, _run, arguments)
