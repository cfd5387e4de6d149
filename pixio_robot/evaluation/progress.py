"""Progress bar for evaluation episodes."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pixio_robot.types import EpisodeResult


class EvaluationProgress:
    """Context manager that returns a callback for each episode's result; shows nothing without a terminal."""

    def __init__(self, episodes: int) -> None:
        console = Console(stderr=True)
        columns = (
            TextColumn("evaluate"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[successes]} succeeded"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._bar = self._progress.add_task("", total=episodes, successes=0)
        self._successes = 0

    def __enter__(self) -> Callable[[EpisodeResult], None]:
        self._progress.start()
        return self._count

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _count(self, result: EpisodeResult) -> None:
        self._successes += result.success
        self._progress.update(self._bar, advance=1, successes=self._successes)
