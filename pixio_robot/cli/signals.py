"""Ctrl-C and SIGTERM end every command in the same way: it cleans up, and can be continued later."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

INTERRUPTED = 128 + signal.SIGINT
"""Exit code of a command that Ctrl-C ended."""


class SignalInterrupt(KeyboardInterrupt):
    """SIGINT or SIGTERM arrived; `number` is the signal's number, `advice` what the user may do now."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.number = number
        self.advice = "Run the same command again to continue where it stopped."


@contextlib.contextmanager
def signals_raise_interrupt() -> Iterator[None]:
    """Context in which SIGINT and SIGTERM raise `SignalInterrupt`. It has no effect outside the main thread, where
    Python handles no signals.

    This also applies if SIGINT was ignored: a shell without job control starts background commands that way, and Python
    does not change it. A signal that arrives where Python drops exceptions, as in a destructor, is sent again.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise SignalInterrupt(number)

    def report(dropped: Any) -> None:
        if isinstance(dropped.exc_value, SignalInterrupt):
            # Later, for here it would be dropped once more.
            again.append(threading.Timer(0.1, signal.pthread_kill, [main_thread, dropped.exc_value.number]))
            again[-1].daemon = True
            again[-1].start()
        else:
            hook(dropped)

    main_thread, again = threading.get_ident(), list[threading.Timer]()
    earlier = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    hook, sys.unraisablehook = sys.unraisablehook, report
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for timer in again:
            timer.cancel()
        for number, handler in earlier.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
