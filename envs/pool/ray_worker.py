"""A pool worker as an actor on a Ray cluster: the same results, from any machine with a free core."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import Any

from envs.config import EnvConfig
from envs.pool.process_worker import THREAD_LIMIT_VARIABLES
from envs.pool.startup import wait_for_start
from envs.pool.worker import Answer, SlotServer, call_and_report
from envs.rendering.egl_devices import assign_render_device
from envs.third_party.base import SimulatorProcessDied
from pixio_robot.types import Frame


class _SlotActor:
    """The actor's side. Images are returned in the answers, through Ray's object store."""

    def __init__(
        self, path: list[str], config: EnvConfig, slots: list[int], index: int, egl_devices: list[int]
    ) -> None:
        # As with spawned processes, workers can import whatever the driver can.
        sys.path += [entry for entry in path if entry not in sys.path]
        assign_render_device(index, egl_devices)
        self._server = SlotServer(config, slots)

    def warm_up(self) -> Answer:
        return call_and_report(self._server.warm_up)

    def serve(self, command: str, payload: Any) -> Answer:
        try:
            return call_and_report(lambda: self._server.serve(command, payload))
        except SimulatorProcessDied as error:  # an exception does not end an actor
            return "died", str(error)

    def close(self) -> None:
        self._server.close()

    def pid(self) -> int:
        return os.getpid()


class RayWorker:
    """One actor with its slots; see `envs.pool.worker_pool.Worker` for the contract. Ray must be running."""

    def __init__(self, config: EnvConfig, slots: list[int], index: int, egl_devices: list[int]) -> None:
        self.slots = slots
        self._arguments = (list(sys.path), config, slots, index, egl_devices)
        self._start()

    def _start(self) -> None:
        import ray

        environment = {"env_vars": dict.fromkeys(THREAD_LIMIT_VARIABLES, "1")}
        options: dict[str, Any] = {"num_cpus": 1, "max_restarts": 0, "runtime_env": environment}
        self._actor: Any = ray.remote(_SlotActor).options(**options).remote(*self._arguments)
        self._pending: Any = self._actor.warm_up.remote()
        self._ready = False

    @property
    def pid(self) -> int:
        import ray

        return ray.get(self._actor.pid.remote())

    def wait_until_ready(self) -> None:
        if not self._ready:
            # Without a free core, another attempt would time out too.
            what = "A simulator's actor on the Ray cluster"
            wait_for_start(self.receive, self.restart, what, fatal=("error", "hung"))
            self._ready = True

    def send(self, command: str, payload: Any) -> None:
        self._pending = self._actor.close.remote() if command == "close" else self._actor.serve.remote(command, payload)

    def receive(self, deadline: float) -> Answer:
        import ray
        from ray.exceptions import GetTimeoutError, RayError, RayTaskError

        try:
            return ray.get(self._pending, timeout=max(0.0, deadline - time.monotonic()))
        except GetTimeoutError:
            return "hung", "it did not answer in time; does the cluster have as many free cores as workers= requests?"
        except RayTaskError:
            raise
        except RayError as error:  # the actor is gone, or its machine with the answer
            return "died", str(error).strip().splitlines()[0]

    def attach_images(self, slot: int, frame: Frame) -> None:
        pass

    def restart(self) -> None:
        self.close(0.0)
        self._start()

    def close(self, deadline: float) -> None:
        import ray

        with contextlib.suppress(Exception):  # already gone
            ray.wait([self._pending], timeout=max(0.0, deadline - time.monotonic()))
            ray.kill(self._actor)
