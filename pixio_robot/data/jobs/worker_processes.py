"""Jobs in worker processes that may crash or hang: such a failure costs one job, never the run.

`concurrent.futures` breaks the whole pool when one worker dies and cannot stop one that hangs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from types import ModuleType
from typing import Any

from pixio_robot.errors import UserError

Job = Callable[[Any, Callable[[float], None]], Any]
"""job(argument, report) -> result; it calls report(amount) as it makes progress. Must be importable by name."""


@dataclasses.dataclass
class JobResult:
    """The outcome for argument number `index`: a result, or the reason for the failure."""

    index: int
    result: Any = None
    failure: str | None = None


ATTEMPTS = 2
"""A process may have been killed for running out of memory that others used up, so its job gets a second attempt; a
file that crashes its decoder does so again."""
_MAIN_MODULE_LOCK = threading.Lock()
"""Held while the parent's script is hidden: another thread would take the stand-in for the script."""
MIN_START_TIMEOUT_S = 120.0
"""Minimum time limit until a worker has started: on a busy machine the imports alone may exceed a short timeout."""


@dataclasses.dataclass
class _Worker:
    process: Any
    connection: Connection
    index: int | None = None
    last_sign_of_life: float = 0.0
    begun: bool = False


def run_jobs(
    job: Job,
    arguments: Sequence[Any],
    *,
    workers: int,
    timeout_s: float,
    on_progress: Callable[[float], None],
) -> Iterator[JobResult]:
    """Run `job` on every argument in `workers` spawned processes; yield outcomes as they come.

    A job that reports no progress for `timeout_s` seconds is killed. A job whose process dies is tried once more. An
    exception in a job is its failure, except UserError (such as a full disk), which ends the run.
    """
    waiting = deque(range(len(arguments)))
    attempts = [0] * len(arguments)
    pool = [_start_worker(job) for _ in range(min(workers, len(arguments)))]
    try:
        while waiting or any(worker.index is not None for worker in pool):
            for worker in [worker for worker in pool if worker.index is None and not worker.process.is_alive()]:
                if waiting:  # the process died between jobs: the next job is not to blame
                    _replace_worker(pool, worker, job)
            for worker in pool:
                if worker.index is None and waiting:
                    worker.index = waiting.popleft()
                    attempts[worker.index] += 1
                    worker.last_sign_of_life = time.monotonic()
                    with contextlib.suppress(OSError):  # it has just died, which `_receive_message` finds
                        worker.connection.send(arguments[worker.index])
            busy = [worker for worker in pool if worker.index is not None]
            ready = set(wait([worker.connection for worker in busy], timeout=min(1.0, timeout_s / 4)))
            for worker in busy:
                outcome = None
                if worker.connection in ready:
                    outcome = _receive_message(worker, on_progress)
                elif _is_hung(worker, timeout_s):
                    worker.process.kill()
                    worker.process.join()
                    outcome = JobResult(_job_index(worker), failure=f"gave up after {timeout_s:g} s without progress")
                    attempts[outcome.index] = ATTEMPTS  # it would hang again
                if outcome is None:
                    continue
                worker.index = None
                died = outcome.failure is not None and not worker.process.is_alive()
                if died:
                    _replace_worker(pool, worker, job)
                if died and attempts[outcome.index] < ATTEMPTS:
                    waiting.append(outcome.index)
                else:
                    yield outcome
    finally:
        for worker in pool:
            worker.process.kill()
        for worker in pool:
            _stop_worker(worker)


@contextlib.contextmanager
def hide_main_module() -> Iterator[None]:
    """Keep processes started inside from importing the parent's script.

    multiprocessing runs the script again in each child, which starts processes endlessly if the script has no
    `if __name__ == "__main__":`. The code of our workers is imported by name and does not need the script.
    """
    with _MAIN_MODULE_LOCK:
        script = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = script


@contextlib.contextmanager
def ctrl_c_blocked() -> Iterator[None]:
    """Keep Ctrl-C, which reaches the whole process group and which the parent handles, from processes started inside
    until they call `ignore_ctrl_c`: it would end their imports with a traceback."""
    resource_tracker.ensure_running()  # the first process starts it, which unblocks the signal
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


def ignore_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What this process starts, such as a robot's driver, inherits the mask, and may want to be ended by the signal.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


def end_with_parent(grace_s: float = 0.0) -> None:
    """End this process when its parent has ended, however that happened, even if it is busy or hangs; `grace_s` seconds
    later, which are for ending by itself."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end() -> None:
        wait([parent.sentinel])
        time.sleep(grace_s)
        os._exit(1)

    threading.Thread(target=end, name="end with parent", daemon=True).start()


def _start_worker(job: Job) -> _Worker:
    context = multiprocessing.get_context("spawn")
    parent_end, child_end = context.Pipe()
    process = context.Process(target=_worker_main, args=(job, child_end), daemon=True)
    with hide_main_module(), ctrl_c_blocked():
        process.start()
    child_end.close()
    return _Worker(process, parent_end)


def _replace_worker(pool: list[_Worker], worker: _Worker, job: Job) -> None:
    """Replace a worker whose process has ended."""
    _stop_worker(worker)
    pool[pool.index(worker)] = _start_worker(job)


def _stop_worker(worker: _Worker) -> None:
    worker.process.join()
    worker.process.close()
    worker.connection.close()


def _is_hung(worker: _Worker, timeout_s: float) -> bool:
    limit = timeout_s if worker.begun else max(timeout_s, MIN_START_TIMEOUT_S)
    return time.monotonic() - worker.last_sign_of_life > limit


def _job_index(worker: _Worker) -> int:
    assert worker.index is not None
    return worker.index


def _receive_message(worker: _Worker, on_progress: Callable[[float], None]) -> JobResult | None:
    """Receive one message from a worker; None if it only reports progress."""
    try:
        kind, value = worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join()
        return JobResult(
            _job_index(worker), failure=f"decoder process died ({_describe_exit(worker.process.exitcode)})"
        )
    worker.last_sign_of_life, worker.begun = time.monotonic(), True
    if kind == "progress":
        on_progress(value)
        return None
    if kind == "user error":
        raise UserError(value)
    if kind == "failure":
        return JobResult(_job_index(worker), failure=value)
    return JobResult(_job_index(worker), result=value)


def _describe_exit(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return signal.Signals(-exit_code).name
    return f"exit code {exit_code}"


def _worker_main(job: Job, connection: Connection) -> None:
    """The worker's side. It exits when the parent does, however that happens."""
    ignore_ctrl_c()
    end_with_parent()
    try:
        while True:
            argument = connection.recv()
            connection.send(("progress", 0.0))  # started
            try:
                message = ("result", job(argument, lambda amount: connection.send(("progress", amount))))
            except UserError as error:
                message = ("user error", str(error))
            except BrokenPipeError:
                raise
            except Exception as error:
                message = ("failure", f"{type(error).__name__}: {error}")
            connection.send(message)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
