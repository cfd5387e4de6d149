"""A progress bar that counts frames and shows the rate and remaining time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextlib.contextmanager
def scoring_progress(title: str, total: int, done: int, show: bool) -> Iterator[Callable[[float], None]]:
    """Yield a function to report that so many more frames are scored."""
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, disable=not show) as progress:
        task = progress.add_task(title, total=total, completed=done, rate="")

        def frames(count: float) -> None:
            progress.advance(task, count)
            if speed := progress.tasks[0].speed:
                progress.update(task, rate=f"{speed:,.0f} frames/s")

        yield frames
