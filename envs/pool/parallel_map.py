"""Runs one function over many inputs in simulator processes and returns the results in order."""

from __future__ import annotations

import atexit
import contextlib
import pickle
import queue
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from multiprocessing.connection import Connection
from typing import Any

from envs.pool.process_worker import single_threaded_children
from envs.rendering.egl_devices import assign_render_device
from pixio_robot.child_processes import MIN_START_TIMEOUT_S, start_child
from pixio_robot.errors import UserError
from pixio_robot.machine import usable_cores

_MAX_CRASHES = 3


def ordered_map[Item, Result](
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, timeout_s: float
) -> Generator[tuple[Item, Result], None, None]:
    """Yield (item, function(item)) in the order of `items`, which may be endless; close it to stop.

    workers: number of processes, 0 for one per core. A process that takes longer than `timeout_s` for an item counts as
    dead; imports do not count. An item whose process died is run again; UserError is raised when that happens three
    times in a row. Exceptions of `function` are raised here.
    """
    processes = [_WorkerProcess(function, index) for index in range(workers or usable_cores())]
    tasks: queue.SimpleQueue[tuple[Item, Future[Result]] | None] = queue.SimpleQueue()

    def serve(process: _WorkerProcess) -> None:
        while (task := tasks.get()) is not None:
            item, future = task
            try:
                future.set_result(process.run(item, timeout_s))
            except BaseException as error:
                future.set_exception(error)

    # One thread per process: it receives results while the caller deals with an earlier one. The program does not wait
    # for daemons, so that it also ends if nobody closes the generator, or a second Ctrl-C interrupts its closing.
    threads = [threading.Thread(target=serve, args=[process], daemon=True) for process in processes]
    source = iter(items)
    pending: deque[tuple[Item, Future[Result]]] = deque()
    try:
        for process, thread in zip(processes, threads, strict=True):
            atexit.register(process.stop)
            thread.start()
        while True:
            # Twice as many as run at once, so that a slow item does not leave the other workers idle.
            while len(pending) < 2 * len(processes):
                try:
                    item = next(source)
                except StopIteration:
                    break
                pending.append((item, Future()))
                tasks.put(pending[-1])
            if not pending:
                return
            item, future = pending.popleft()
            yield item, future.result()
    finally:
        for process in processes:
            process.stop()
            tasks.put(None)
        for process, thread in zip(processes, threads, strict=True):
            if thread.ident is not None:
                thread.join()
            process.close()
            atexit.unregister(process.stop)


class _WorkerDied(Exception):
    """A process ended, or hangs."""


class _WorkerProcess:
    """A process that runs the function on one item at a time, started when it is first needed.

    Each has a pipe of its own. The processes of `concurrent.futures` share one: there, a process that is killed in the
    middle of a result leaves its reader waiting for the rest, and the program does not end.
    """

    def __init__(self, function: Callable[[Any], Any], index: int) -> None:
        self._function, self._index = function, index
        self._process: Any = None
        self._connection: Any = None
        self._lock = threading.Lock()
        """Held while the process is started or killed."""
        self._ready = False
        """Whether the process has imported the function."""
        self._stopped = False

    def run(self, item: Any, timeout_s: float) -> Any:
        """function(item), as `ordered_map` does it."""
        crashes = 0
        while True:
            try:
                return self._run_once(item, timeout_s)
            except _WorkerDied as error:
                crashes += 1
                if not self._stopped:  # otherwise, whoever stopped it closes it
                    self.close()
                if crashes == _MAX_CRASHES or self._stopped:
                    raise UserError(
                        f"A simulator process died {crashes} times in a row ({error}). Use fewer workers if memory is "
                        "short."
                    ) from error

    def stop(self) -> None:
        """Kill the process, which ends `run` in another thread; no other process is started."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def close(self) -> None:
        """Kill the process and release what it used. `run` starts another one."""
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._process.join()
                self._process.close()
                self._connection.close()
                self._process = None

    def _run_once(self, item: Any, timeout_s: float) -> Any:
        self._start()
        try:
            if not self._ready:
                self._receive(max(timeout_s, MIN_START_TIMEOUT_S))
                self._ready = True
            self._connection.send(item)
            succeeded, result = self._receive(timeout_s)
        except (EOFError, OSError) as error:
            raise _WorkerDied("it ended by itself") from error
        if not succeeded:
            raise result
        return result

    def _receive(self, timeout_s: float) -> Any:
        if not self._connection.poll(timeout_s):
            raise _WorkerDied(f"no result in {timeout_s:g} seconds")
        return self._connection.recv()

    def _start(self) -> None:
        """Start the process unless it is running."""
        with self._lock:
            if self._stopped:
                raise _WorkerDied("it was stopped")
            if self._process is not None:
                return
            defined_in_main = getattr(getattr(self._function, "func", self._function), "__module__", "") == "__main__"
            with single_threaded_children():
                self._process, self._connection = start_child(
                    _worker_main, self._function, self._index, needs_main=defined_in_main
                )
            self._ready = False


def _worker_main(connection: Connection, function: Callable[[Any], Any], index: int) -> None:
    """The process's side."""
    assign_render_device(index)
    with contextlib.suppress(EOFError):
        connection.send(None)
        while True:
            item = connection.recv()
            try:
                answer = pickle.dumps((True, function(item)))
            except Exception as error:
                answer = pickle.dumps((False, _as_message(error)))
            connection.send_bytes(answer)


def _as_message(error: Exception) -> Exception:
    """The exception with its traceback as a note, as tracebacks do not travel between processes."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError("".join(traceback.format_exception_only(error)))
    return error
