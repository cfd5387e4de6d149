"""Run the jobs of an ingest or of scoring in processes of this machine or on a Ray cluster, with the same outcomes.

    for outcome in run_tasks(job, arguments, executor=Executor.RAY, workers=0, timeout_s=120.0):
        ...  # outcome.index, and outcome.result or outcome.failure (the reason as a short text)

`job(argument, report) -> result` must be importable by name, because a spawned process or another machine looks it
up. `argument` and `result` are pickled, so keep them small: paths rather than pixels. The job calls `report(amount)`
as it makes progress; the amounts are passed on to `on_progress`. Outcomes come in the order in which jobs finish; sort
them by `index` if the result must not depend on the number of workers.

A job that crashes, hangs or raises does not affect the others: its `failure` says why. UserError ends the whole run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pixio_robot.choice import Choice
from pixio_robot.data.jobs.worker_processes import Job, JobResult, run_jobs
from pixio_robot.errors import UserError
from pixio_robot.machine import usable_cores

__all__ = ["Executor", "Job", "JobResult", "run_tasks"]


class Executor(Choice):
    """Where the workers run. processes: on this machine. ray: on all machines of a Ray cluster, which must share the
    storage."""

    PROCESSES = "processes"
    RAY = "ray"


def run_tasks(
    job: Job,
    arguments: Sequence[Any],
    *,
    executor: Executor = Executor.PROCESSES,
    workers: int = 0,
    timeout_s: float = 120.0,
    on_progress: Callable[[float], None] = lambda amount: None,
    gpus: float = 0.0,
) -> Iterator[JobResult]:
    """Run `job` on every argument, yielding outcomes as they come; closing the iterator stops the workers.

    `workers`: 0 means one per core (with Ray, as many as the cluster has cores, or GPUs for `gpus`). `timeout_s`: a
    job that reports no progress for this many seconds is abandoned. `gpus`: the fraction of a GPU that each worker
    reserves; Ray only, because Ray assigns devices, while processes of one machine all see the same ones.
    Raises UserError if a job raises one, or if Ray is requested but not installed.
    """
    if executor is Executor.RAY:
        try:
            import ray  # noqa: F401
        except ImportError as error:
            raise UserError("executor=ray needs Ray: pip install 'pixio-robot[ray]'.") from error
        from pixio_robot.data.jobs.ray_cluster import run_ray_jobs

        yield from run_ray_jobs(job, arguments, workers, timeout_s, on_progress, gpus)
    else:
        workers = workers or usable_cores()
        yield from run_jobs(job, arguments, workers=workers, timeout_s=timeout_s, on_progress=on_progress)
