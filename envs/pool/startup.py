"""Waits until a pool worker is ready, in a local process or on Ray."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from envs.pool.worker import Answer
from pixio_robot.errors import UserError

START_TIMEOUT_S = 180.0
"""Time to import the simulator, build an environment and compile robosuite's controller for the first time."""

MAX_FAILED_STARTS = 3


def wait_for_start(
    receive: Callable[[float], Answer], restart: Callable[[], None], what: str, *, fatal: Collection[str]
) -> None:
    """Wait for the first answer of a newly started worker; if it fails, restart it, a few times.

    receive: the worker's `receive`, with a deadline in `time.monotonic()`. fatal: kinds of answers after which
    another attempt would fail too. Raises UserError, in which the worker is called `what`, if it cannot be started.
    """
    for failed in range(1, MAX_FAILED_STARTS + 1):
        kind, value = receive(time.monotonic() + START_TIMEOUT_S)
        if kind == "ok":
            return
        if kind == "user_error":
            raise UserError(value)
        if kind in fatal or failed == MAX_FAILED_STARTS:
            times = f", {failed} times" if failed > 1 else ""
            raise UserError(f"{what} could not start{times}: {value}")
        restart()
