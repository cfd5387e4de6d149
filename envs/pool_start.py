"""The wait until a pool's worker is ready, wherever it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from envs.pool_worker import Answer
from pixio_robot.errors import UserError

START_TIMEOUT_S = 180.0
"""Importing the simulator, building an environment and compiling robosuite's controller for the first time."""

MAX_FAILED_STARTS = 3


def wait_for_start(
    receive: Callable[[float], Answer], restart: Callable[[], None], what: str, *, hopeless: Collection[str]
) -> None:
    """Wait for the first answer of a worker that was just started; one that fails is started anew, a few times.

    receive: of the worker, until a deadline of `time.monotonic()`. hopeless: kinds of answers after which another try
    would go the same way. Raises UserError, which calls the worker `what`, where it cannot be started.
    """
    for failed in range(1, MAX_FAILED_STARTS + 1):
        kind, value = receive(time.monotonic() + START_TIMEOUT_S)
        if kind == "ok":
            return
        if kind == "user_error":
            raise UserError(value)
        if kind in hopeless or failed == MAX_FAILED_STARTS:
            times = f", {failed} times" if failed > 1 else ""
            raise UserError(f"{what} could not start{times}: {value}")
        restart()
