"""`pixio-robot report`: one self-contained report.html of a run directory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pixio_robot.cli.compose import run
from pixio_robot.cli.environment import describe_environment
from pixio_robot.cli.stages import STAMP_SUFFIX
from pixio_robot.errors import UserError
from pixio_robot.files import atomic_file, read_json, write_json


@dataclass(kw_only=True)
class ReportCommand:
    """Success rates with intervals, loss curves, reconstructions, videos and timings of one run."""

    run: str = "runs/default"
    """Directory that the other commands wrote to."""


def _gather(directory: Path) -> None:
    """What the report wants to know of the run as a whole, from the stamps of its stages."""
    stamps = [read_json(path) for path in directory.rglob(f"*{STAMP_SUFFIX}")]
    stamps.sort(key=lambda stamp: stamp["finished_at"])
    lines = [{key: stamp[key] for key in ("stage", "out", "command", "seconds", "finished_at")} for stamp in stamps]
    with atomic_file(directory / "stages.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_json(directory / "environment.json", describe_environment())


def _run(command: ReportCommand) -> int:
    from pixio_robot.evaluation.report import build_report

    directory = Path(command.run)
    if not directory.is_dir():
        raise UserError(
            f"There is no run directory {directory}: give run=DIR, the directory the other commands wrote to."
        )
    _gather(directory)
    path = build_report(directory, directory / "report.html")
    print(f"report: {path.resolve()}")
    return 0


def main(arguments: list[str]) -> int:
    return run("report", ReportCommand, _run, arguments)
