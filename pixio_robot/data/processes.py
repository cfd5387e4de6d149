"""Jobs in worker processes that may crash or hang: each such accident costs one job, never the run.

`concurrent.futures` gives the whole pool up when one worker dies and cannot stop one that hangs.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from pixio_robot.errors import UserError

Job = Callable[[Any, Callable[[float], None]], Any]
"""job(argument, report) -> result; it calls report(amount) whenever it got on. Importable by name."""


@dataclasses.dataclass
class Outcome:
    """What became of argument number `index`: a result, or the reason why there is none."""

    index: int
    result: Any = None
    failure: str | None = None


ATTEMPTS = 2
"""The system may have ended a process for its memory while others used it up; a file that kills its decoder does it
again."""
LONGEST_START_S = 120.0
"""On a busy machine the imports alone may outlast a short limit: until it has begun, a worker gets at least so long."""


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
    on_progress: Callable[[float], None] = lambda amount: None,
) -> Iterator[Outcome]:
    """Run `job` on every argument in `workers` spawned processes; yield outcomes as they come.

    A job that reports nothing for `timeout_s` seconds is killed. One whose process dies is tried once more. An
    exception in a job is its failure, except UserError (a full disk), which ends the run.
    """
    waiting = deque(range(len(arguments)))
    attempts = [0] * len(arguments)
    pool = [_start(job) for _ in range(min(workers, len(arguments)))]
    try:
        while waiting or any(worker.index is not None for worker in pool):
            for worker in [worker for worker in pool if worker.index is None and not worker.process.is_alive()]:
                if waiting:  # what ended it after its last job is not the next one's doing
                    _replace(pool, worker, job)
            for worker in pool:
                if worker.index is None and waiting:
                    worker.index = waiting.popleft()
                    attempts[worker.index] += 1
                    worker.last_sign_of_life = time.monotonic()
                    worker.connection.send(arguments[worker.index])
            busy = [worker for worker in pool if worker.index is not None]
            ready = set(wait([worker.connection for worker in busy], timeout=min(1.0, timeout_s / 4)))
            for worker in busy:
                outcome, hung = None, False
                if worker.connection in ready:
                    outcome = _receive(worker, on_progress)
                elif _silent_s(worker) > (timeout_s if worker.begun else max(timeout_s, LONGEST_START_S)):
                    worker.process.kill()
                    worker.process.join()
                    hung = True
                    outcome = Outcome(_index(worker), failure=f"gave up after {timeout_s:g} s without progress")
                if outcome is None:
                    continue
                worker.index = None
                died = outcome.failure is not None and not worker.process.is_alive()
                if died:
                    _replace(pool, worker, job)
                if died and not hung and attempts[outcome.index] < ATTEMPTS:
                    waiting.append(outcome.index)
                else:
                    yield outcome
    finally:
        for worker in pool:
            worker.process.kill()
        for worker in pool:
            _stop(worker)


def _start(job: Job) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(job, theirs), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _replace(pool: list[_Worker], worker: _Worker, job: Job) -> None:
    """A worker whose process has ended by a new one."""
    _stop(worker)
    pool[pool.index(worker)] = _start(job)


def _stop(worker: _Worker) -> None:
    worker.process.join()
    worker.process.close()
    worker.connection.close()


def _silent_s(worker: _Worker) -> float:
    return time.monotonic() - worker.last_sign_of_life


def _index(worker: _Worker) -> int:
    assert worker.index is not None
    return worker.index


def _receive(worker: _Worker, on_progress: Callable[[float], None]) -> Outcome | None:
    """One message of a worker; None when it was only progress."""
    try:
        kind, value = worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join()
        return Outcome(_index(worker), failure=f"decoder process died ({_cause(worker.process.exitcode)})")
    worker.last_sign_of_life, worker.begun = time.monotonic(), True
    if kind == "progress":
        on_progress(value)
        return None
    if kind == "user error":
        raise UserError(value)
    if kind == "failure":
        return Outcome(_index(worker), failure=value)
    return Outcome(_index(worker), result=value)


def _cause(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return signal.Signals(-exit_code).name
    return f"exit code {exit_code}"


def _serve(job: Job, connection: Connection) -> None:
    """The worker's side. It ends when the parent does, whichever way that happened."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    try:
        while True:
            argument = connection.recv()
            connection.send(("progress", 0.0))  # it has begun
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
