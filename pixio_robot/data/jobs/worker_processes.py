"""Jobs in worker processes that may crash or hang: such a failure costs one job, never the run.

`concurrent.futures` breaks the whole pool when one worker dies and cannot stop one that hangs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from pixio_robot.child_processes import MIN_START_TIMEOUT_S, start_child
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
            _assign_jobs(pool, waiting, arguments, attempts)
            busy = [worker for worker in pool if worker.index is not None]
            ready = set(wait([worker.connection for worker in busy], timeout=min(1.0, timeout_s / 4)))
            for worker in busy:
                outcome = _check_worker(worker, ready, timeout_s, on_progress, attempts)
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


def _start_worker(job: Job) -> _Worker:
    return _Worker(*start_child(_worker_main, job))


def _replace_worker(pool: list[_Worker], worker: _Worker, job: Job) -> None:
    """Replace a worker whose process has ended."""
    _stop_worker(worker)
    pool[pool.index(worker)] = _start_worker(job)


def _stop_worker(worker: _Worker) -> None:
    worker.process.join()
    worker.process.close()
    worker.connection.close()


def _assign_jobs(pool: Sequence[_Worker], waiting: deque[int], arguments: Sequence[Any], attempts: list[int]) -> None:
    for worker in pool:
        if worker.index is None and waiting:
            worker.index = waiting.popleft()
            attempts[worker.index] += 1
            worker.last_sign_of_life = time.monotonic()
            with contextlib.suppress(OSError):  # it has just died, which `_receive_message` finds
                worker.connection.send(arguments[worker.index])


def _check_worker(
    worker: _Worker,
    ready: Collection[Any],
    timeout_s: float,
    on_progress: Callable[[float], None],
    attempts: list[int],
) -> JobResult | None:
    """The outcome of a busy worker's job; None while it runs. A worker that hangs is killed."""
    if worker.connection in ready:
        return _receive_message(worker, on_progress)
    if not _is_hung(worker, timeout_s):
        return None
    worker.process.kill()
    worker.process.join()
    index = _job_index(worker)
    attempts[index] = ATTEMPTS  # it would hang again
    return JobResult(index, failure=f"gave up after {timeout_s:g} s without progress")


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
        return JobResult(_job_index(worker), failure=f"worker process died ({_describe_exit(worker.process.exitcode)})")
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


def _worker_main(connection: Connection, job: Job) -> None:
    """The worker's side."""
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
