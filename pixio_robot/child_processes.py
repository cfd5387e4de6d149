"""Processes that one program starts for parts of its work: each has a pipe to its parent and ends when that does."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from types import ModuleType
from typing import Any

MIN_START_TIMEOUT_S = 120.0
"""Minimum time limit until a process has started: on a busy machine the imports alone may exceed a short timeout."""
_MAIN_MODULE_LOCK = threading.Lock()
"""Held while the parent's script is hidden: another thread would take the stand-in for the script."""


def start_child(
    target: Callable[..., None],
    *arguments: Any,
    context: Any = None,
    needs_main: bool = False,
    grace_s: float = 0.0,
) -> tuple[Any, Connection]:
    """Start a process that runs target(connection, *arguments); return it and the other end of the connection.

    The process ends when this one has ended, however that happened and even if it is busy or hangs, but `grace_s`
    seconds later, which are for ending by itself. It ignores Ctrl-C, which reaches the whole process group and which
    the parent handles.

    context: of `multiprocessing`, default spawn. needs_main: the target, or what is pickled for it, is defined in the
    program's script, which the process must then import.
    """
    context = context or multiprocessing.get_context("spawn")
    connection, child_connection = context.Pipe()
    process = context.Process(target=_run_child, args=(target, child_connection, arguments, grace_s), daemon=True)
    with contextlib.nullcontext() if needs_main else hide_main_module(), _ctrl_c_blocked():
        process.start()
    child_connection.close()
    return process, connection


@contextlib.contextmanager
def hide_main_module() -> Iterator[None]:
    """Keep processes started inside from importing the parent's script.

    multiprocessing runs the script again in each child, which starts processes endlessly if the script has no
    `if __name__ == "__main__":`. Code that is imported by name does not need the script.
    """
    with _MAIN_MODULE_LOCK:
        script = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = script


@contextlib.contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    """Keep Ctrl-C from processes started inside until they ignore it: it would end their imports with a traceback."""
    resource_tracker.ensure_running()  # the first process starts it, which unblocks the signal
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


def _run_child(target: Callable[..., None], connection: Connection, arguments: tuple[Any, ...], grace_s: float) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What this process starts, such as a robot's driver, inherits the mask, and may want to be ended by the signal.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    threading.Thread(target=_end_with_parent, args=(grace_s,), name="end with parent", daemon=True).start()
    target(connection, *arguments)


def _end_with_parent(grace_s: float) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    time.sleep(grace_s)
    os._exit(1)
