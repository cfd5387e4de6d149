"""The progress line of an ingest: files, hours of video, speed relative to real time, and remaining time."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from pixio_robot.data.footage.kinds import Footage
from pixio_robot.progress import Progress


class IngestProgress:
    """Progress of a run over `found`, of which `to_do` was not finished by an earlier run.

    The remaining time is estimated from bytes, because files differ too much in length to count them. The part read of
    unfinished files is converted to bytes at the rate of the finished ones.
    """

    def __init__(
        self,
        found: Sequence[Footage],
        to_do: Sequence[Footage],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files, self._files_done = len(found), len(found) - len(to_do)
        self._bytes = sum(footage.bytes for footage in to_do)
        self._bytes_done = self._timed_bytes_done = 0
        self._seconds = self._seconds_done = 0.0
        self._clock, self._began = clock, clock()
        self._progress = Progress("decoding", self._bytes)

    def __enter__(self) -> IngestProgress:
        self._progress.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._progress.__exit__(kind, error, trace)

    def seconds(self, amount: float) -> None:
        """Report that `amount` seconds of video were read."""
        self._seconds += amount
        self._show()

    def done(self, footage: Footage, seconds: float) -> None:
        """Report that a file is finished, of which `seconds` seconds were read."""
        self._files_done += 1
        self._bytes_done += footage.bytes
        if footage.kind.timed:
            self._timed_bytes_done += footage.bytes
            self._seconds_done += seconds
        self._show()

    def state(self) -> str:
        """The text of the progress line."""
        elapsed = max(self._clock() - self._began, 1e-3)
        words = f"{self._files_done}/{self._files} files, {self._seconds / 3600:.2f} h of video, "
        words += f"{self._seconds / elapsed:.1f} x real time"
        read = self._bytes_read()
        if not read:
            return words
        to_go = datetime.timedelta(seconds=round(elapsed * (self._bytes - read) / read))
        return f"{words}, {to_go} to go"

    def _bytes_read(self) -> float:
        if not self._seconds_done:
            return self._bytes_done
        unfinished = (self._seconds - self._seconds_done) * self._timed_bytes_done / self._seconds_done
        return min(self._bytes_done + max(0.0, unfinished), self._bytes)

    def _show(self) -> None:
        self._progress.show(self._bytes_read(), self.state())
