"""The thread in which a server calls its policy."""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any


class PolicyThread(Executor):
    """Runs calls one after another in a daemon thread, which the end of the process ends and nothing before it.

    At its end, a thread that ran torch may give back Python objects, for which it needs the interpreter's lock. Up to
    Python 3.12 the interpreter joins its threads without waiting for that part, and a thread that asks for the lock of
    an interpreter being taken down is torn out of C++, which aborts the process ("terminate called without an active
    exception"): with a ThreadPoolExecutor, up to one server in six ended so. Nor does the interpreter wait for a daemon
    whose policy hangs.
    """

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        threading.Thread(target=_run_calls, args=[self._calls], name="policy", daemon=True).start()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._calls.put((future, functools.partial(function, *args, **kwargs)))
        return future


def _run_calls(calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]]) -> None:
    while True:
        future, call = calls.get()
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)
        del future, call  # their arrays would be kept until the next call
