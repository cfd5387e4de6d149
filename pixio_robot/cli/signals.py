"""Ctrl-C and SIGTERM end every command alike: what it has begun is put away, and it can be continued."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn


class Ended(KeyboardInterrupt):
    """SIGINT or SIGTERM arrived, of that `number`."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.number = number


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Inside, SIGINT and SIGTERM raise `Ended` in the main thread; elsewhere Python handles no signals.

    Also where SIGINT was ignored: a shell without job control starts so what it puts into the background, and Python
    leaves that be.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise Ended(number)

    earlier = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
