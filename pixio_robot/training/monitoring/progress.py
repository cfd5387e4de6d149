"""Training progress: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class TrainingProgress:
    """Show step, rate, time left and the latest metrics; nothing unless `shown`."""

    def __init__(self, title: str, steps: int, done: int, shown: bool = True) -> None:
        self._title, self._steps, self._shown = title, steps, shown
        self._first, self._started = done, time.monotonic()
        console = Console(stderr=True)
        self._bar = None
        if shown and console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[summary]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=console,
            )
            self._task = self._bar.add_task(title, total=steps, completed=done, summary="")

    def __enter__(self) -> TrainingProgress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if self._bar:
            self._bar.stop()

    def step(self, step: int) -> None:
        if self._bar:
            self._bar.update(self._task, completed=step)

    def report(self, step: int, line: Mapping[str, float]) -> None:
        summary = f"loss {line['loss']:.4f}, {line['examples_per_second']:.0f} examples/s"
        summary += f", MFU {line['mfu']:.0%}" if "mfu" in line else ""
        summary += f", {line['data_wait_share']:.0%} waiting for data"
        if self._bar:
            self._bar.update(self._task, completed=step, summary=summary)
            return
        if not self._shown:
            return
        left = (time.monotonic() - self._started) / max(step - self._first, 1) * (self._steps - step)
        minutes, seconds = divmod(round(left), 60)
        print(f"{self._title}: step {step}/{self._steps}, {summary}, {minutes}:{seconds:02} left", flush=True)

    def report_hooks(self, step: int, values: Mapping[str, Any]) -> None:
        """Show on a line of its own the numbers that hooks returned after `step`, such as the loss on held-out data,
        without their components (`action_error/gripper`)."""
        scalars = {name: value for name, value in values.items() if isinstance(value, int | float) and "/" not in name}
        numbers = [f"{name} {value:.4g}" for name, value in scalars.items()]
        if not self._shown or not numbers:
            return
        line = f"{self._title}: step {step}/{self._steps}, {', '.join(numbers)}"
        if self._bar:
            self._bar.console.print(line, highlight=False)
        else:
            print(line, flush=True)
