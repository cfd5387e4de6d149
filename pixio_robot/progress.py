"""Progress of long work: a bar on a terminal; elsewhere, such as in the log of a job, a line of text now and then."""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from types import TracebackType

SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """Context manager that shows on stderr how much of `total` is done; nothing unless `shown`.

    `done` was there before and does not count for the time left. The bar disappears at the end.
    """

    def __init__(
        self,
        title: str,
        total: float,
        done: float = 0,
        shown: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._title, self._total, self._done, self._shown = title, total, done, shown
        self._first, self._clock = done, clock
        self._began = self._last_line = clock()
        self._bar = None

    def __enter__(self) -> Progress:
        if self._shown and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"))
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(self._title, total=self._total, completed=int(self._done), text="")
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if self._bar is not None:
            self._bar.stop()

    def resume(self, done: float) -> None:
        """Report that `done` were there before, where the caller learns it only now."""
        self._first = self._done = done
        if self._bar is not None:
            self._bar.update(self._task, completed=done)

    def advance(self, count: float = 1, remark: str = "") -> None:
        """Report that `count` more are done; the `remark` is shown between their number and the time left."""
        done = self._done + count
        parts = (f"{done:,.0f}/{self._total:,.0f}", remark, self._left(done))
        self.show(done, ", ".join(filter(None, parts)))

    def say(self, text: str) -> None:
        """Print a line that stays."""
        if self._bar is not None:
            self._bar.console.print(f"{self._title}: {text}", highlight=False, markup=False)
        elif self._shown:
            print(f"{self._title}: {text}", flush=True)

    def show(self, done: float, text: str) -> None:
        """Report that `done` of the total are done, with a text of the caller's own."""
        self._done = done
        if self._bar is not None:
            self._bar.update(self._task, completed=done, text=text)
        elif self._shown and self._clock() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = self._clock()
            print(f"{self._title}: {text}", file=sys.stderr, flush=True)

    def _left(self, done: float) -> str:
        if done <= self._first:
            return ""
        seconds = (self._clock() - self._began) / (done - self._first) * (self._total - done)
        return f"{datetime.timedelta(seconds=round(max(seconds, 0)))} left"


def track_progress[T](items: Iterable[T], title: str, total: int | None = None) -> Iterator[T]:
    """Yield the items and show how many the caller is done with. `total`: their number, for items without a length."""
    if total is None:
        if not isinstance(items, Sized):
            raise TypeError("track_progress needs the number of items that have no length: total=.")
        total = len(items)
    with Progress(title, total) as progress:
        for item in items:
            yield item
            progress.advance()
