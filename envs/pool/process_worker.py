"""A pool worker as a local process, with a pipe and shared memory for images."""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import wait
from typing import Any

from envs.config import EnvConfig
from envs.pool.startup import wait_for_start
from envs.pool.worker import CLOSING_S, Answer, SharedImageLayout, run_worker
from pixio_robot.child_processes import start_child
from pixio_robot.choice import Choice
from pixio_robot.machine import temporary_environment
from pixio_robot.types import Frame

THREAD_LIMIT_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "LP_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


_ENVIRONMENT_LOCK = threading.Lock()
"""Held while the limits are set: another thread would take them for the user's."""


class StartMethod(Choice):
    """spawn: each worker is a new interpreter. forkserver: workers are forked from a process that has already imported
    the simulator."""

    SPAWN = "spawn"
    FORKSERVER = "forkserver"


@contextlib.contextmanager
def single_threaded_children() -> Iterator[None]:
    """Limit processes started inside to one thread for linear algebra and software rendering: there is one per core."""
    with _ENVIRONMENT_LOCK, temporary_environment(dict.fromkeys(THREAD_LIMIT_VARIABLES, "1")):
        yield


class ProcessWorker:
    """One process with its slots; see `envs.pool.worker_pool.Worker` for the contract."""

    def __init__(
        self, config: EnvConfig, slots: list[int], index: int, start_method: StartMethod, egl_devices: list[int]
    ) -> None:
        self._config, self.slots = config, slots
        self._index, self._egl_devices = index, egl_devices
        self._context: Any = multiprocessing.get_context(start_method.value)
        if start_method is StartMethod.FORKSERVER:
            self._context.set_forkserver_preload(["envs.pool.worker", "mujoco"])
        self._blocks = SharedImageLayout.of(config, slots)
        # Anonymous shared memory: nothing to clean up, no matter how the processes end.
        self._memory = self._context.RawArray("B", self._blocks.bytes) if self._blocks.bytes else None
        self._start()

    def _start(self) -> None:
        self._ready = False
        arguments = (self._memory, self._blocks, self._config, self.slots, self._index, self._egl_devices)
        with single_threaded_children():
            # Ctrl-C before both are set leaves the previous process, which has ended.
            self.process, self._connection = start_child(
                run_worker, *arguments, context=self._context, grace_s=CLOSING_S
            )

    @property
    def pid(self) -> int:
        return self.process.pid or 0

    def wait_until_ready(self) -> None:
        if not self._ready:
            what = "The simulator's worker process"
            wait_for_start(self.receive, self.restart, what, fatal=("error",))
            self._ready = True

    def send(self, command: str, payload: Any) -> None:
        with contextlib.suppress(OSError):  # a dead worker is detected in `receive`
            self._connection.send((command, payload))

    def receive(self, deadline: float) -> Answer:
        try:
            if not wait([self._connection], timeout=max(0.0, deadline - time.monotonic())):
                return "hung", "it did not answer in time"
            return self._connection.recv()
        except (EOFError, OSError):
            self.process.join(1.0)  # the exit code is only available afterwards
            return "died", f"it ended unexpectedly (exit code {self.process.exitcode})"

    def attach_images(self, slot: int, frame: Frame) -> None:
        if self._memory is not None:
            # Copies, because the worker overwrites them with the next images.
            frame.images = {name: view.copy() for name, view in self._blocks.views(self._memory, slot).items()}

    def restart(self) -> None:
        self._kill()
        self._start()

    def _kill(self) -> None:
        self.process.kill()
        self.process.join()
        self._connection.close()

    def close(self, deadline: float) -> None:
        self.process.join(max(0.0, deadline - time.monotonic()))
        self._kill()
        self.process.close()
