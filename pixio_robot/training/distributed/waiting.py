"""Waiting for the other processes of a launch, which may never come: a shell may have RANK and WORLD_SIZE left over."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

_PATIENCE_S = 10.0


@contextlib.contextmanager
def wait_for_others(patience_s: float = _PATIENCE_S) -> Iterator[None]:
    """Context in which this process says, after some seconds, for whom it waits, and in which Ctrl-C and SIGTERM end it
    at once: torch waits for half an hour, and Python handles no signals meanwhile."""
    timer = threading.Timer(patience_s, _say_who_waits)
    timer.daemon = True
    timer.start()
    is_main_thread = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if is_main_thread else ()
    earlier = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    try:
        yield
    finally:
        timer.cancel()
        for number, handler in earlier.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _say_who_waits() -> None:
    rank, size, *address = (os.environ.get(name, "?") for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))
    print(
        f"pixio-robot: this process (RANK={rank}, WORLD_SIZE={size}) waits for the others, which it expects at "
        f"{':'.join(address)}. If there are none, end it, and unset RANK and WORLD_SIZE.",
        file=sys.stderr,
        flush=True,
    )
