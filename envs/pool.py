"""Many environments in worker processes, stepped together; a worker that dies or hangs is replaced."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np

from envs.config import EnvConfig
from envs.pool_worker import image_layout, run_worker
from envs.registry import spec_of
from pixio_robot.errors import UserError
from pixio_robot.types import Frame, StepResult

START_TIMEOUT_S = 180.0
"""Importing the simulator, building an environment and compiling robosuite's controller for the first time."""

_MAX_FAILED_STARTS = 3
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LP_NUM_THREADS", "NUMBA_NUM_THREADS")


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Processes started inside get one thread for linear algebra and software rendering: the cores are theirs."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class _Worker:
    """One process with its slots, its pipe and the shared memory its pictures come through."""

    def __init__(self, config: EnvConfig, slots: list[int]) -> None:
        self._config = config
        self.slots = slots
        self._context = multiprocessing.get_context("spawn")
        self._cameras, self._shape = image_layout(config)
        size = len(slots) * int(np.prod(self._shape))
        # Anonymous shared memory: nothing to clean up, however the processes end.
        self._memory = self._context.RawArray("B", size) if size else None
        self._failed_starts = 0
        self.start()

    def start(self) -> None:
        self.connection, theirs = self._context.Pipe()
        with one_thread_each():
            self.process = self._context.Process(
                target=run_worker, args=(theirs, self._memory, self._config, self.slots), daemon=True
            )
            self.process.start()
        theirs.close()
        self._ready = False

    def wait_until_ready(self) -> None:
        """Raises UserError where the worker cannot be started, again and again."""
        while not self._ready:
            kind, value = receive(self.connection, time.monotonic() + START_TIMEOUT_S)
            if kind == "ok":
                self._ready = True
                self._failed_starts = 0
                return
            if kind == "user_error":
                raise UserError(value)
            self._failed_starts += 1
            if kind == "error" or self._failed_starts >= _MAX_FAILED_STARTS:
                how = value if kind == "error" else f"it {value} (exit code {self.process.exitcode})"
                raise UserError(f"The simulator's worker process could not start, {self._failed_starts} times: {how}")
            self.restart()

    def restart(self) -> None:
        self.kill()
        self.start()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()

    def images(self, slot: int) -> dict[str, np.ndarray]:
        if self._memory is None:
            return {}
        blocks = np.frombuffer(self._memory, np.uint8).reshape(len(self.slots), *self._shape)
        # Copies: the worker writes the next pictures over these.
        pictures = blocks[self.slots.index(slot)].copy()
        return dict(zip(self._cameras, pictures, strict=True))


def receive(connection: Connection, deadline: float) -> tuple[str, Any]:
    """The next answer, ("died", text) where the process ended, or ("hung", text) past the deadline."""
    if not wait([connection], timeout=max(0.0, deadline - time.monotonic())):
        return "hung", "did not answer in time"
    try:
        return connection.recv()
    except (EOFError, ConnectionResetError):
        return "died", "ended unexpectedly"


class ProcessPool:
    """`num_slots` environments over `num_workers` processes; implements `pixio_robot.types.EnvPool`.

    Slot i lives in worker i % num_workers for good, and each worker steps its slots in order, so what a slot
    shows depends on its seed and actions alone. `step_timeout_s`: a worker that takes longer over one call is
    killed and replaced. `lost` holds the slots of a replaced worker that were asked for or in an episode.
    `restarts` counts replacements. Use it as a context manager, or close it.
    """

    def __init__(
        self, config: EnvConfig, num_workers: int = 0, num_slots: int = 1, step_timeout_s: float = 60.0
    ) -> None:
        """num_workers: 0 for one a core, never more than slots."""
        if num_slots < 1:
            raise UserError(f"num_slots must be at least 1, not {num_slots}.")
        if num_workers < 0:
            raise UserError(f"num_workers must be 0 (one a core) or more, not {num_workers}.")
        if step_timeout_s <= 0:
            raise UserError(f"step_timeout_s must be positive, not {step_timeout_s}.")
        self.spec = spec_of(config)
        self.num_slots = num_slots
        self.restarts = 0
        count = min(num_workers or available_cores(), num_slots)
        self._timeout = step_timeout_s
        self._running: set[int] = set()
        self._workers: list[_Worker] = []
        try:
            for first in range(count):
                self._workers.append(_Worker(config, list(range(first, num_slots, count))))
            for worker in self._workers:
                worker.wait_until_ready()
        except BaseException:
            self.close()
            raise

    @property
    def worker_pids(self) -> list[int]:
        return [worker.process.pid or 0 for worker in self._workers]

    def reset(self, seeds: Mapping[int, int], render: Mapping[int, bool]) -> tuple[dict[int, Frame], set[int]]:
        frames, lost = self._call("reset", {slot: (seed, render.get(slot, True)) for slot, seed in seeds.items()})
        for slot, frame in frames.items():
            self._running.add(slot)
            self._attach(slot, frame, render.get(slot, True))
        return frames, lost

    def step(
        self, actions: Mapping[int, np.ndarray], render: Mapping[int, bool]
    ) -> tuple[dict[int, StepResult], set[int]]:
        results, lost = self._call(
            "step", {slot: (np.asarray(action), render.get(slot, True)) for slot, action in actions.items()}
        )
        for slot, result in results.items():
            if result.done:
                self._running.discard(slot)
            self._attach(slot, result.frame, render.get(slot, True))
        return results, lost

    def _attach(self, slot: int, frame: Frame, rendered: bool) -> None:
        if rendered:
            frame.images = self._workers[slot % len(self._workers)].images(slot)

    def _call(self, command: str, payload: dict[int, Any]) -> tuple[dict[int, Any], set[int]]:
        if not self._workers:
            raise RuntimeError("This pool is closed.")
        for slot in payload:
            if not 0 <= slot < self.num_slots:
                raise ValueError(f"There is no slot {slot}, only 0 to {self.num_slots - 1}.")
        asked = []
        for worker in self._workers:
            mine = {slot: payload[slot] for slot in worker.slots if slot in payload}
            if mine:
                worker.wait_until_ready()
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # told by the answer
                    worker.connection.send((command, mine))
                asked.append((worker, mine))
        deadline = time.monotonic() + self._timeout
        results, lost, failures = {}, set(), []
        for worker, mine in asked:
            kind, value = receive(worker.connection, deadline)
            if kind == "ok":
                results |= value
            elif kind in ("died", "hung"):
                lost |= set(mine) | (self._running & set(worker.slots))
                self.restarts += 1
                worker.restart()
            else:
                failures.append((kind, value))
        self._running -= lost
        for kind, value in failures:
            if kind == "user_error":
                raise UserError(value)
            raise RuntimeError(f"An environment raised an exception in its worker process:\n{value}")
        return results, lost

    def close(self) -> None:
        """End all workers; harmless when called again."""
        workers, self._workers = self._workers, []
        for worker in workers:
            with contextlib.suppress(OSError):
                worker.connection.send(("close", None))
        deadline = time.monotonic() + 2.0
        for worker in workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            worker.kill()
            worker.process.close()

    def __enter__(self) -> ProcessPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
