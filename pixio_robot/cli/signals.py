"""Ctrl-C and SIGTERM end every command in the same way: it cleans up, and can be continued later."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

INTERRUPTED = 128 + signal.SIGINT
"""Exit code of a command that Ctrl-C ended."""


class SignalInterrupt(KeyboardInterrupt):
    """SIGINT or SIGTERM arrived; `number` is the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.number = number


@contextlib.contextmanager
def signals_raise_interrupt() -> Iterator[None]:
    """Context in which SIGINT and SIGTERM raise `SignalInterrupt`. It has no effect outside the main thread, where
    Python handles no signals.

    This also applies if SIGINT was ignored: a shell without job control starts background commands that way, and Python
    does not change it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise SignalInterrupt(number)

    earlier = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
