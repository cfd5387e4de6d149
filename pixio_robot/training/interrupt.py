"""Ctrl-C and SIGTERM end a run at a step boundary, with everything saved."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

MESSAGE = b"\nStopping after this step and saving a checkpoint. Press Ctrl-C again to quit at once.\n"


class Interrupt:
    """While entered, the first SIGINT or SIGTERM only sets `requested`; the second one acts as it always does.

    Outside the main thread, where Python handles no signals, it does nothing.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = False
        self._earlier: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._earlier = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._put_back()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._put_back()
        os.write(2, MESSAGE)  # `print` is not safe inside a signal handler

    def _put_back(self) -> None:
        while self._earlier:
            number, handler = self._earlier.popitem()
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
