"""The jobs of `executor.run_tasks` on a Ray cluster: one actor per worker, polled for progress once a second.

Each actor answers from a second thread. An actor that does not answer (a decoder that hangs while it holds the GIL) or
makes no progress for `timeout_s` is killed. An actor that dies is replaced and its job tried once more, because the
machine may have gone away; a file that crashes its decoder does so again. An actor that dies as it starts is replaced
twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import pickle
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from pixio_robot.data.jobs.worker_processes import Job, JobResult
from pixio_robot.errors import UserError

log = logging.getLogger(__name__)

POLL_INTERVAL_S = 1.0
ATTEMPTS = 2
STARTS = 3


class _RayActor:
    """The actor: `run` occupies one of its threads; `progress` is answered by another."""

    def __init__(self, path: list[str], pickled_job: bytes) -> None:
        # As with spawned processes, workers can import what the driver can.
        sys.path += [entry for entry in path if entry not in sys.path]
        self._job: Job = pickle.loads(pickled_job)
        self._lock = threading.Lock()
        self._reports, self._amount = 0, 0.0

    def run(self, argument: Any) -> tuple[str, Any]:
        try:
            return "result", self._job(argument, self._report)
        except UserError as error:
            return "user error", str(error)
        except Exception as error:
            return "failure", f"{type(error).__name__}: {error}"

    def progress(self) -> tuple[int, float]:
        """Number of reports so far, and the amount since the last call."""
        with self._lock:
            amount, self._amount = self._amount, 0.0
            return self._reports, amount

    def _report(self, amount: float) -> None:
        with self._lock:
            self._reports += 1
            self._amount += amount


@dataclasses.dataclass
class _Worker:
    actor: Any
    started: Any
    """Reference that is ready once the actor runs; None from then on. Waiting for a free core does not count as
    hanging."""
    index: int | None = None
    answer: Any = None
    question: Any = None
    reports: int = -1
    last_sign_of_life: float = 0.0
    failed_starts: int = 0
    """Of this actor and of those that it replaced."""


def run_ray_jobs(
    job: Job,
    arguments: Sequence[Any],
    workers: int,
    timeout_s: float,
    on_progress: Callable[[float], None],
    gpus: float,
) -> Iterator[JobResult]:
    """See `executor.run_tasks`."""
    with connect_to_ray():
        served = ray.remote(_RayActor).options(num_cpus=1, num_gpus=gpus, max_concurrency=2, max_restarts=0)
        make = functools.partial(served.remote, sys.path, pickle.dumps(job))
        waiting = deque(range(len(arguments)))
        attempts = [0] * len(arguments)
        count = min(workers or _worker_capacity(gpus), len(arguments))
        pool = [_start_worker(make) for _ in range(count)]
        try:
            while waiting or any(worker.index is not None for worker in pool):
                _assign_jobs(pool, waiting, arguments, attempts)
                busy = [worker for worker in pool if worker.index is not None]
                references = [worker.answer or worker.started for worker in pool if worker.answer or worker.started]
                ready, _ = ray.wait(references, num_returns=1, timeout=min(POLL_INTERVAL_S, timeout_s / 4))
                for worker in list(pool):
                    if worker.started in ready and (error := _start_failure(worker)) is not None:
                        if worker.failed_starts + 1 == STARTS:
                            raise error
                        replacement = _start_worker(make)
                        replacement.failed_starts = worker.failed_starts + 1
                        pool[pool.index(worker)] = replacement
                for worker in busy:
                    outcome, lost = _check_worker(worker, ready, timeout_s, on_progress, attempts)
                    if outcome is None:
                        continue
                    if lost:
                        ray.kill(worker.actor)
                        pool[pool.index(worker)] = _start_worker(make)
                    worker.index = None
                    if lost and attempts[outcome.index] < ATTEMPTS:
                        waiting.append(outcome.index)
                    else:
                        yield outcome
        finally:
            for worker in pool:
                ray.kill(worker.actor)


@contextlib.contextmanager
def connect_to_ray() -> Iterator[None]:
    """The cluster of RAY_ADDRESS, or the one running on this machine, or else a new one of this machine alone.

    Raises UserError if there is no connection to it.
    """
    connected_here = not ray.is_initialized()
    if connected_here:
        try:
            with _sigterm_kept():
                ray.init(log_to_driver=False, logging_level=logging.WARNING, include_dashboard=False)
        except (OSError, RuntimeError, ValueError) as error:
            raise _no_connection(error) from error
    nodes = sum(node["Alive"] for node in ray.nodes())
    log.info("Ray cluster of %d machines with %d cores", nodes, ray.cluster_resources().get("CPU", 0))
    try:
        yield
    finally:
        if connected_here:
            ray.shutdown()


def _no_connection(error: Exception) -> UserError:
    address = os.environ.get("RAY_ADDRESS")
    where = f"to the Ray cluster of RAY_ADDRESS={address}" if address else "to Ray on this machine"
    # `ray start` of newer releases asks for a token unless told otherwise, but only its own terminal says so.
    token = (
        ""
        if os.environ.get("RAY_AUTH_MODE") == "token"
        else (
            " If the head asks for a token (`ray start` tells), set RAY_AUTH_MODE=token on every machine, and copy "
            "~/.ray/auth_token from the head to them."
        )
    )
    return UserError(f"Cannot connect {where}: {str(error).strip()}.{token}")


@contextlib.contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Keep the handler of SIGTERM. Ray's exits with code 15, and below it is one that aborts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL  # None: not one of Python's
    try:
        yield
    except SystemExit as end:
        signal.signal(signal.SIGTERM, handler)
        if end.code == signal.SIGTERM:  # Ray's has handled one
            signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, handler)


def _worker_capacity(gpus: float) -> int:
    """How many workers the cluster has room for. Raises UserError if there is none for even one."""
    resources = ray.cluster_resources()
    room = int(resources.get("CPU", 0))
    if gpus:
        room = min(room, int(resources.get("GPU", 0) / gpus))
    if room == 0:
        raise UserError(f"The Ray cluster has no room for a worker of 1 CPU and {gpus:g} GPU; it has {resources}.")
    return room


def _start_worker(make: Callable[[], Any]) -> _Worker:
    actor = make()
    return _Worker(actor, actor.progress.remote())


def _start_failure(worker: _Worker) -> UserError | None:
    """The error if the actor could not start, e.g. for a failed import: every job there would fail as well."""
    try:
        ray.get(worker.started)
    except RayTaskError:
        raise
    except RayError as error:
        failure = UserError(
            "A Ray worker could not start; the same version of pixio-robot must be installed on every machine of the "
            f"cluster. {str(error).strip()}"
        )
        failure.__cause__ = error
        return failure
    worker.started = None
    return None


def _assign_jobs(pool: Sequence[_Worker], waiting: deque[int], arguments: Sequence[Any], attempts: list[int]) -> None:
    for worker in pool:
        if worker.index is None and worker.started is None and waiting:
            worker.index = waiting.popleft()
            attempts[worker.index] += 1
            worker.answer = worker.actor.run.remote(arguments[worker.index])
            worker.question = None
            worker.last_sign_of_life = time.monotonic()


def _check_worker(
    worker: _Worker, ready: Sequence[Any], timeout_s: float, on_progress: Callable[[float], None], attempts: list[int]
) -> tuple[JobResult | None, bool]:
    """Return (outcome or None while the job runs, whether the actor died or hangs)."""
    assert worker.index is not None
    try:
        if worker.answer in ready:
            kind, value = ray.get(worker.answer)
            worker.answer = None
            with contextlib.suppress(RayError):  # it has died since: the result counts
                for question in (worker.question, worker.actor.progress.remote()):
                    if question is not None:
                        on_progress(ray.get(question, timeout=timeout_s)[1])
            if kind == "user error":
                raise UserError(value)
            if kind == "failure":
                return JobResult(worker.index, failure=value), False
            return JobResult(worker.index, result=value), False
        _poll_progress(worker, on_progress)
    except RayTaskError:
        raise
    except RayError as error:
        worker.answer = None
        reason = str(error).strip().splitlines()[0]
        return JobResult(worker.index, failure=f"worker process died ({reason})"), True
    if time.monotonic() - worker.last_sign_of_life > timeout_s:
        worker.answer = None
        attempts[worker.index] = ATTEMPTS  # it would hang again
        return JobResult(worker.index, failure=f"gave up after {timeout_s:g} s without progress"), True
    return None, False


def _poll_progress(worker: _Worker, on_progress: Callable[[float], None]) -> None:
    if worker.question is None:
        worker.question = worker.actor.progress.remote()
    answered, _ = ray.wait([worker.question], timeout=0)
    if answered:
        reports, amount = ray.get(worker.question)
        worker.question = None
        on_progress(amount)
        if reports != worker.reports:
            worker.reports = reports
            worker.last_sign_of_life = time.monotonic()
