"""A progress bar that counts frames and shows the rate and remaining time."""

from __future__ import annotations

from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class ScoringProgress:
    def __init__(self, title: str, total: int, done: int, show: bool) -> None:
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            disable=not show,
        )
        self._task = self._progress.add_task(title, total=total, completed=done, rate="")

    def frames(self, count: float) -> None:
        self._progress.advance(self._task, count)
        speed = self._progress.tasks[0].speed
        if speed:
            self._progress.update(self._task, rate=f"{speed:,.0f} frames/s")

    def __enter__(self) -> ScoringProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
