"""Ctrl-C and SIGTERM end a run at a step boundary, with everything saved."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

MESSAGE = b"\nStopping after this step and saving a checkpoint. Press Ctrl-C again to quit at once.\n"


# torchrun passes on a signal that its children, being of the same group or job, have had already.
SAME_SIGNAL_SECONDS = 1.0


class Interrupt:
    """While entered, the first SIGINT or SIGTERM is only kept in `signal`; one a second later acts as it always does.

    So is SIGUSR2 where somebody handles it: submitit does, who puts a job whose time is nearly over back into Slurm's
    queue. That handler has it once the block is left, when everything is saved.

    Outside the main thread, where Python handles no signals, it does nothing.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)
    PASSED_ON = signal.SIGUSR2

    def __init__(self) -> None:
        self.signal = 0
        """Number of the signal that asked to stop; 0 for none."""
        self._at = 0.0
        self._earlier: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            handled = callable(signal.getsignal(self.PASSED_ON))
            numbers = (*self.SIGNALS, self.PASSED_ON) if handled else self.SIGNALS
            self._earlier = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._put_back()
        if error is None and self.signal == self.PASSED_ON:
            signal.raise_signal(self.signal)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal == 0:
            self.signal, self._at = number, time.monotonic()
            os.write(2, MESSAGE)  # `print` is not safe inside a signal handler
        elif time.monotonic() - self._at > SAME_SIGNAL_SECONDS:
            self._put_back()
            signal.raise_signal(number)  # to this thread: the kernel may give another one what `os.kill` sends

    def _put_back(self) -> None:
        while self._earlier:
            number, handler = self._earlier.popitem()
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
