"""Runs one function over many inputs in simulator processes and returns the results in order."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent import futures
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any

from envs.pool.process_worker import single_threaded_children
from envs.rendering.egl_devices import assign_render_device
from pixio_robot.data.jobs.worker_processes import hide_main_module
from pixio_robot.errors import UserError
from pixio_robot.machine import usable_cores

_MAX_CRASHES = 3


def _initialise_worker(started: Any) -> None:
    """Set up a worker process. started: shared counter of the processes started before this one."""
    with started.get_lock():
        assign_render_device(started.value)
        started.value += 1
    # Ctrl-C is handled by the parent. If the parent is killed, its workers must not outlive it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:

        def exit_with_parent() -> None:
            wait([parent.sentinel])
            os._exit(1)

        threading.Thread(target=exit_with_parent, daemon=True).start()


def _executor(workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, initializer=_initialise_worker, initargs=(context.Value("i", 0),))


def ordered_map[Item, Result](
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, timeout_s: float
) -> Generator[tuple[Item, Result], None, None]:
    """Yield (item, function(item)) in the order of `items`, which may be endless; close it to stop.

    workers: number of processes, 0 for one per core. A process that takes longer than `timeout_s` for an item counts as
    dead. Items of a process that died are run again; UserError is raised after three deaths without a result in
    between. Exceptions of `function` are raised here.
    """
    workers = workers or usable_cores()
    source = iter(items)
    pending: deque[tuple[Item, Future[Any]]] = deque()
    executor = _executor(workers)
    crashes = 0
    try:
        while True:
            # Twice as many as run at once, so that a slow item does not leave the other workers idle.
            while len(pending) < 2 * workers:
                try:
                    item = next(source)
                except StopIteration:
                    break
                pending.append((item, _submit(executor, function, item)))
            if not pending:
                return
            item, future = pending[0]
            try:
                result = _result(future, timeout_s)
            except _WorkerDied as error:
                crashes += 1
                if crashes >= _MAX_CRASHES:
                    raise UserError(
                        f"A simulator process died {crashes} times in a row ({error}). Use fewer workers if memory is "
                        "short."
                    ) from error
                _stop(executor)
                executor = _executor(workers)
                pending = deque((item, _submit(executor, function, item)) for item, _ in pending)
                continue
            crashes = 0
            pending.popleft()
            yield item, result
    finally:
        _stop(executor)


class _WorkerDied(Exception):
    """A process ended, or hangs."""


def _result(future: Future[Any], timeout_s: float) -> Any:
    # Not as the time-out of `result`, which the function's own TimeoutError would be mistaken for.
    done, _ = futures.wait([future], timeout_s)
    if not done:
        raise _WorkerDied(f"no result in {timeout_s:g} seconds")
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise _WorkerDied("it ended by itself") from error


def _submit(executor: ProcessPoolExecutor, function: Callable[[Any], Any], item: Any) -> Future[Any]:
    # Only a function defined in the script itself needs the script in the new processes.
    defined_in_main = getattr(getattr(function, "func", function), "__module__", "") == "__main__"
    try:
        with single_threaded_children(), contextlib.nullcontext() if defined_in_main else hide_main_module():
            return executor.submit(function, item)
    except BrokenProcessPool as error:
        # Reported where this item's result is awaited, like any other death.
        future: Future[Any] = Future()
        future.set_exception(error)
        return future


def _stop(executor: ProcessPoolExecutor) -> None:
    processes = list((executor._processes or {}).values())
    executor.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
