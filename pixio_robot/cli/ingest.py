"""`pixio-robot ingest`: decode videos and images into shards of frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pixio_robot.cli.config.compose import run_command_line
from pixio_robot.cli.settings import RunSettings
from pixio_robot.cli.stages.stage import Stage, run_stage
from pixio_robot.data.ingest.pipeline import IngestConfig, ingest

DROPPED = {
    "static": "static frames",
    "over_limit": "frames beyond max_frames_per_video",
    "damaged": "damaged frames",
}

LISTED_ENDINGS = 8


@dataclass(kw_only=True)
class IngestCommand(IngestConfig, RunSettings):
    """Decode a folder of footage into shards of JPEG frames, split by video.

    The folder is searched recursively for videos, images, tars of images, LeRobot data sets and Zarr demonstrations.
    executor=ray uses all machines of a Ray cluster. privacy=module:function runs your own code on every frame.
    """

    overwrite: bool = False
    """Start over instead of updating an existing result at `out`."""


def _ingest(command: IngestCommand) -> bool:
    report = ingest(command)
    state = "wrote" if report.changed else "is up to date:"
    counts = ", ".join(f"{count} {split}" for split, count in report.frames.items())
    print(f"ingest: {state} {report.out}: {counts} frames of {report.footage} files, {report.hours:.2f} hours of video")
    left_out = [f"{report.dropped[name]} {words}" for name, words in DROPPED.items() if report.dropped[name]]
    if left_out:
        print(f"ingest: left out {', '.join(left_out)}")
    if report.others:
        kinds = ", ".join(f"{count} {ending}" for ending, count in list(report.others.items())[:LISTED_ENDINGS])
        print(f"ingest: skipped {sum(report.others.values())} files that are not footage: {kinds}")
    if command.privacy:
        print(f"ingest: {command.privacy} hid {report.hidden_regions} regions")
    if report.copies:
        print(
            f"ingest: {report.copies} files are copies of others (equal sha256 in manifest.json) and are included too; "
            "`curate encoder=...` drops duplicate frames"
        )
    images = report.dropped["unreadable_images"]
    if report.failed or images:
        print(
            f"ingest: {report.failed} files could not be used, {images} single images could not be read: "
            f"{report.failed + images} lines in {Path(report.out) / 'failures.jsonl'}"
        )
    return True


def _run(command: IngestCommand) -> int:
    # `ingest` detects changed footage file by file, so it always runs.
    inputs = {"source": command.source}
    stage = Stage("ingest", command.out, command, inputs, overwrite=command.overwrite, always=True)
    return run_stage(stage, lambda: _ingest(command))


def main(arguments: list[str]) -> int:
    return run_command_line("ingest", IngestCommand, _run, arguments)
