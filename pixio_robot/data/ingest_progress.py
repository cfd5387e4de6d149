"""The progress line of an ingest: files, hours of video, and how many times faster than real time it goes."""

from __future__ import annotations

import time

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class IngestProgress:
    """Counts of one run; `done_before` files were finished by an earlier one."""

    def __init__(self, files: int, done_before: int, show: bool) -> None:
        self._progress = Progress(
            TextColumn("decoding"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("files  {task.fields[speed]}"),
            TimeRemainingColumn(),
            disable=not show,
        )
        self._task = self._progress.add_task("", total=files, completed=done_before, speed="")
        self._seconds = 0.0
        self._began = time.monotonic()

    def __enter__(self) -> IngestProgress:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def seconds(self, amount: float) -> None:
        self._seconds += amount
        rate = self._seconds / max(time.monotonic() - self._began, 1e-3)
        self._progress.update(self._task, speed=f"{self._seconds / 3600:.2f} h of video, {rate:.1f} x real time")

    def file_done(self) -> None:
        self._progress.advance(self._task)
