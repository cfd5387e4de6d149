"""The progress line of an ingest: files, hours of video, how many times faster than real time, and time to go.

The time to go is told from bytes: files differ too much in length for their number to foretell it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from pixio_robot.data.footage import Footage


class IngestProgress:
    """Counts of one run over `found`, of which only `to_do` was not finished by an earlier one."""

    def __init__(self, found: Sequence[Footage], to_do: Sequence[Footage], show: bool) -> None:
        self._progress = Progress(
            TextColumn("decoding"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            disable=not show,
        )
        self._files, self._files_done = len(found), len(found) - len(to_do)
        self._task = self._progress.add_task("", total=sum(footage.bytes for footage in to_do), state="")
        self._seconds = 0.0
        self._began = time.monotonic()
        self._show_state()

    def __enter__(self) -> IngestProgress:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def seconds(self, amount: float) -> None:
        """So many seconds of video were read."""
        self._seconds += amount
        self._show_state()

    def done(self, footage: Footage) -> None:
        self._files_done += 1
        self._progress.advance(self._task, footage.bytes)
        self._show_state()

    def _show_state(self) -> None:
        rate = self._seconds / max(time.monotonic() - self._began, 1e-3)
        hours = self._seconds / 3600
        state = f"{self._files_done}/{self._files} files  {hours:.2f} h of video, {rate:.1f} x real time"
        self._progress.update(self._task, state=state)
