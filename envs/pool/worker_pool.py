"""Many environments in worker processes, stepped together; workers that die or hang are replaced."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from envs.config import Engine, EnvConfig
from envs.pool.process_worker import ProcessWorker, StartMethod
from envs.pool.worker import CLOSING_S, Answer, get_frame
from envs.simulator_imports import load_mujoco
from envs.spec import make_env_spec
from pixio_robot.data.jobs.executor import Executor
from pixio_robot.errors import UserError
from pixio_robot.machine import usable_cores
from pixio_robot.types import Frame, StepResult

if TYPE_CHECKING:
    from envs.warp.pool import WarpPool


class Worker(Protocol):
    """Steps some of the slots, in another process."""

    slots: list[int]

    @property
    def pid(self) -> int: ...

    def wait_until_ready(self) -> None:
        """Raises UserError if the worker repeatedly fails to start."""
        ...

    def send(self, command: str, payload: Any) -> None: ...

    def receive(self, deadline: float) -> Answer:
        """The answer, or ("died", reason), or ("hung", reason) after the deadline."""
        ...

    def attach_images(self, slot: int, frame: Frame) -> None:
        """Add the slot's images, if they are not part of the answer."""
        ...

    def restart(self) -> None: ...

    def close(self, deadline: float) -> None: ...


class WorkerPool:
    """`num_slots` environments over several workers; implements `pixio_robot.types.EnvPool`.

    Slot i always belongs to worker i % workers, and each worker steps its slots in order, so a slot's frames depend
    only on its seed and actions. `step_timeout_s`: a worker that takes longer for one call is killed and replaced; it
    gets the same time again for each environment that it builds in the call. `lost` contains the slots of a replaced
    worker that were part of the call or in an episode. `restarts` counts replacements. `on_close` is closed after the
    workers. Use the pool as a context manager, or close it.
    """

    def __init__(
        self,
        config: EnvConfig,
        num_workers: int,
        num_slots: int,
        step_timeout_s: float,
        make_worker: Callable[[int, list[int]], Worker],
    ) -> None:
        """make_worker(index, slots) starts a worker. num_workers: limited to the number of slots."""
        if num_slots < 1:
            raise UserError(f"num_slots must be at least 1, not {num_slots}.")
        if num_workers < 0:
            raise UserError(f"num_workers must be 0 (one per core) or more, not {num_workers}.")
        if step_timeout_s <= 0:
            raise UserError(f"step_timeout_s must be positive, not {step_timeout_s}.")
        self.spec = make_env_spec(config)
        self.num_slots = num_slots
        self.restarts = 0
        self._timeout = step_timeout_s
        self._running: set[int] = set()
        self._unbuilt = set(range(num_slots))
        self._awaiting_reply: list[Worker] = []
        """Workers whose answer is still to come."""
        self._workers: list[Worker] = []
        self.on_close = contextlib.ExitStack()
        count = min(num_workers, num_slots)
        try:
            for first in range(count):
                self._workers.append(make_worker(first, list(range(first, num_slots, count))))
            for worker in self._workers:
                worker.wait_until_ready()
        except BaseException:
            self.close()
            raise

    @property
    def worker_pids(self) -> list[int]:
        return [worker.pid for worker in self._workers]

    def reset(self, seeds: Mapping[int, int], render: Mapping[int, bool]) -> tuple[dict[int, Frame], set[int]]:
        frames, lost = self._call("reset", {slot: (seed, render.get(slot, True)) for slot, seed in seeds.items()})
        self._running |= set(frames)
        return frames, lost

    def step(
        self, actions: Mapping[int, np.ndarray], render: Mapping[int, bool]
    ) -> tuple[dict[int, StepResult], set[int]]:
        results, lost = self._call(
            "step", {slot: (np.asarray(action), render.get(slot, True)) for slot, action in actions.items()}
        )
        self._running -= {slot for slot, result in results.items() if result.done}
        return results, lost

    def _call(self, command: str, payload: dict[int, Any]) -> tuple[dict[int, Any], set[int]]:
        if not self._workers:
            raise RuntimeError("This pool is closed.")
        for slot in payload:
            if not 0 <= slot < self.num_slots:
                raise ValueError(f"Slot {slot} does not exist; slots are 0 to {self.num_slots - 1}.")
        while self._awaiting_reply:  # Ctrl-C or another exception ended the last call: its answers are not for this one
            self._replace(self._awaiting_reply[-1])
            self._awaiting_reply.pop()
        sent = []
        for worker in self._workers:
            requests = {slot: payload[slot] for slot in worker.slots if slot in payload}
            if requests:
                worker.wait_until_ready()
                self._awaiting_reply.append(worker)
                worker.send(command, requests)
                sent.append((worker, requests))
        # A slot's environment is built at its first reset.
        builds = max((len(self._unbuilt & set(requests)) for _, requests in sent), default=0)
        deadline = time.monotonic() + self._timeout * max(1, builds)
        results, lost, failures = {}, set(), []
        for worker, requests in sent:
            kind, value = worker.receive(deadline)
            self._awaiting_reply.remove(worker)
            if kind == "ok":
                self._unbuilt -= set(requests)
                for slot, (_, rendered) in requests.items():
                    if rendered:
                        worker.attach_images(slot, get_frame(value[slot]))
                results |= value
            elif kind in ("died", "hung"):
                lost |= set(requests) | (self._running & set(worker.slots))
                self._replace(worker)
            else:
                failures.append((kind, value))
        for kind, value in failures:
            if kind == "user_error":
                raise UserError(value)
            raise RuntimeError(f"An environment raised an exception in its worker process:\n{value}")
        return results, lost

    def _replace(self, worker: Worker) -> None:
        self.restarts += 1
        self._unbuilt |= set(worker.slots)
        self._running -= set(worker.slots)
        worker.restart()

    def close(self) -> None:
        """Stop all workers; may be called more than once."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.send("close", None)
        deadline = time.monotonic() + CLOSING_S
        for worker in workers:
            worker.close(deadline)
        self.on_close.close()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def make_pool(
    config: EnvConfig,
    num_workers: int = 0,
    num_slots: int = 1,
    step_timeout_s: float = 60.0,
    *,
    executor: Executor = Executor.PROCESSES,
    start_method: StartMethod = StartMethod.SPAWN,
    egl_devices: Sequence[int] = (),
) -> WorkerPool | WarpPool:
    """Create the pool for the configuration's engine and the executor: of processes on this machine (which works in a
    plain script: no `if __name__ == "__main__":` is needed), or of actors on the Ray cluster at RAY_ADDRESS, else a
    local running one, else a new one on this machine.

    num_workers: 0 for one per core. egl_devices: GPUs to render on, assigned round-robin; empty for all that can render
    (see `envs.rendering.egl_devices`). With engine=warp, all slots are worlds of one simulation in this process, on its
    first GPU. Raises UserError if Ray is needed but not installed.
    """
    devices = list(egl_devices)
    if config.engine is Engine.WARP:
        if executor is Executor.RAY:
            raise UserError("engine=warp runs on one machine only: leave out executor=ray.")
        load_mujoco()
        from envs.warp.pool import WarpPool

        return WarpPool(config, num_slots)
    if executor is Executor.PROCESSES:

        def start_process(index: int, slots: list[int]) -> Worker:
            return ProcessWorker(config, slots, index, start_method, devices)

        return WorkerPool(config, num_workers or usable_cores(), num_slots, step_timeout_s, start_process)
    try:
        import ray
    except ImportError as error:
        raise UserError("executor=ray needs Ray: pip install 'pixio-robot[ray]'.") from error
    from envs.pool.ray_worker import RayWorker
    from pixio_robot.data.jobs.ray_cluster import connect_to_ray

    def start_actor(index: int, slots: list[int]) -> Worker:
        return RayWorker(config, slots, index, devices)

    with contextlib.ExitStack() as stack:
        stack.enter_context(connect_to_ray())
        num_workers = num_workers or max(1, int(ray.cluster_resources().get("CPU", 0)))
        pool = WorkerPool(config, num_workers, num_slots, step_timeout_s, start_actor)
        pool.on_close = stack.pop_all()
    return pool
