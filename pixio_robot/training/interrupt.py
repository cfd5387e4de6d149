"""On Ctrl-C or SIGTERM, stop a run at a step boundary with everything saved."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

MESSAGE = b"\nStopping after this step and saving a checkpoint. Press Ctrl-C again to quit immediately.\n"


# torchrun forwards a signal that its children, in the same process group or job, have already received.
SAME_SIGNAL_SECONDS = 1.0


class Interrupt:
    """Context manager that records the first SIGINT or SIGTERM in `signal`; one more than a second later acts as usual.

    The same holds for SIGUSR2 if it has a handler: submitit uses it to requeue a Slurm job whose time is nearly up.
    That handler is called when the block is left, after everything has been saved.

    Outside the main thread, where Python cannot handle signals, this does nothing.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)
    PASSED_ON = signal.SIGUSR2

    def __init__(self) -> None:
        self.signal = 0
        """Number of the signal that requested the stop; 0: none."""
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
            signal.raise_signal(number)  # to this thread: with `os.kill` the kernel may pick another one

    def _put_back(self) -> None:
        while self._earlier:
            number, handler = self._earlier.popitem()
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
