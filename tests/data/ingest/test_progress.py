"""What the progress line of an ingest says."""

from __future__ import annotations

from pathlib import Path

from pixio_robot.data.footage.kinds import Footage, FootageKind
from pixio_robot.data.ingest.progress import IngestProgress


def footage(name: str, size: int, kind: FootageKind = FootageKind.VIDEO) -> Footage:
    return Footage(id=name, group=name, kind=kind, paths=(Path(name),), bytes=size, modified_ns=0, stamp="")


def test_hours_speed_and_time_to_go() -> None:
    now = [100.0]
    files = [footage("a.mp4", 600), footage("b.mp4", 600), footage("c.mp4", 600), footage("there.mp4", 10_000)]
    progress = IngestProgress(files, files[:3], clock=lambda: now[0])
    assert progress.state().startswith("1/4 files, 0.00 h of video")
    assert "to go" not in progress.state()
    now[0] += 20
    progress.seconds(720.0)  # twelve minutes in twenty seconds; nothing is finished, so nothing is foretold
    assert progress.state() == "1/4 files, 0.20 h of video, 36.0 x real time"
    progress.done(files[0], 720.0)
    assert progress.state() == "2/4 files, 0.20 h of video, 36.0 x real time, 0:00:40 to go"
    now[0] += 10
    progress.seconds(360.0)  # half of the second, if it is like the first
    assert progress.state() == "2/4 files, 0.30 h of video, 36.0 x real time, 0:00:30 to go"
    progress.seconds(360.0)
    now[0] += 10
    progress.done(files[1], 720.0)
    progress.done(files[2], 0.0)  # it was no film
    assert progress.state() == "4/4 files, 0.40 h of video, 36.0 x real time, 0:00:00 to go"


def test_photographs_have_no_seconds_and_still_foretell() -> None:
    now = [0.0]
    files = [footage("a/", 100, FootageKind.IMAGES), footage("b.mp4", 300)]
    progress = IngestProgress(files, files, clock=lambda: now[0])
    now[0] = 5.0
    progress.done(files[0], 0.0)
    assert progress.state() == "1/2 files, 0.00 h of video, 0.0 x real time, 0:00:15 to go"
