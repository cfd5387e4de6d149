"""Steps some of a pool's environments, in its own process or Ray actor. Started by `envs.pool.worker_pool`."""

from __future__ import annotations

import dataclasses
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from envs.config import EnvConfig
from envs.registry import Environment, make_env
from envs.rendering.egl_devices import assign_render_device
from envs.spec import make_env_spec
from envs.tasks import THIRD_PARTY
from envs.third_party.base import SimulatorProcessDied
from pixio_robot.errors import UserError
from pixio_robot.types import Frame, StepResult

CLOSING_S = 2.0
"""Time for a worker to close its environments before it is killed."""

Answer = tuple[str, Any]
"""("ok", value), ("user_error", message) or ("error", traceback)."""


class SlotServer:
    """The environments of some slots. An environment is built when its slot is first reset, and its OpenGL context when
    an image is first rendered, so a policy without cameras needs no graphics."""

    def __init__(self, config: EnvConfig, slots: Sequence[int]) -> None:
        self._config, self._slots = config, list(slots)
        self._environments: dict[int, Environment] = {}

    def warm_up(self) -> None:
        """Step once: the first step compiles robosuite's controller, which must not count against a step's time-out.

        A third-party environment, which may be a real robot, is built but not moved.
        """
        first = self._environment(self._slots[0])
        if self._config.simulator in THIRD_PARTY:
            return
        first.reset(0, render=False)
        first.step(np.zeros(first.spec.action_dim), render=False)

    def serve(self, command: str, payload: dict[int, tuple[Any, bool]]) -> dict[int, Frame] | dict[int, StepResult]:
        """`reset` with {slot: (seed, render)} or `step` with {slot: (action, render)}."""
        if command == "reset":
            return {slot: self._environment(slot).reset(seed, render) for slot, (seed, render) in payload.items()}
        return {slot: self._environment(slot).step(action, render) for slot, (action, render) in payload.items()}

    def close(self) -> None:
        for env in self._environments.values():
            env.close()

    def _environment(self, slot: int) -> Environment:
        if slot not in self._environments:
            self._environments[slot] = make_env(self._config)
        return self._environments[slot]


def call_and_report(call: Callable[[], Any]) -> Answer:
    try:
        return "ok", call()
    except SimulatorProcessDied:
        raise  # so this process ends too, and the pool starts another
    except UserError as error:
        return "user_error", str(error)
    except Exception:
        return "error", traceback.format_exc()


def get_frame(value: Frame | StepResult) -> Frame:
    return value.frame if isinstance(value, StepResult) else value


@dataclasses.dataclass(frozen=True)
class SharedImageLayout:
    """Layout of the images in shared memory: one block per slot, in which the cameras follow each other.

    shapes: {camera: (h, w, 3)}.
    """

    shapes: Mapping[str, tuple[int, int, int]]
    slots: Sequence[int]

    @classmethod
    def of(cls, config: EnvConfig, slots: Sequence[int]) -> SharedImageLayout:
        cameras = make_env_spec(config).cameras
        return cls({name: (camera.height, camera.width, 3) for name, camera in cameras.items()}, slots)

    @property
    def bytes(self) -> int:
        """Total size for all slots."""
        return len(self.slots) * sum(map(math.prod, self.shapes.values()))

    def views(self, memory: Any, slot: int) -> dict[str, np.ndarray]:
        """The images of a slot: {camera: uint8 (h, w, 3)}, as views of the memory."""
        offset, views = self.slots.index(slot) * (self.bytes // len(self.slots)), {}
        for camera, shape in self.shapes.items():
            size = math.prod(shape)
            views[camera] = np.frombuffer(memory, np.uint8, size, offset).reshape(shape)
            offset += size
        return views


def run_worker(
    connection: Connection,
    memory: Any,
    blocks: SharedImageLayout,
    config: EnvConfig,
    slots: list[int],
    worker: int,
    egl_devices: list[int],
) -> None:
    """Serve `reset` and `step` for these slots until told to close or the parent is gone.

    memory: a shared byte array with the layout `blocks`; None if there are no images.
    """
    assign_render_device(worker, egl_devices)
    server = SlotServer(config, slots)

    def serve(command: str, payload: dict[int, tuple[Any, bool]]) -> Any:
        results = server.serve(command, payload)
        for slot, value in results.items():
            frame = get_frame(value)
            if frame.images and memory is not None:
                for camera, view in blocks.views(memory, slot).items():
                    view[:] = frame.images[camera]
            frame.images = {}
        return results

    try:
        connection.send(call_and_report(server.warm_up))
        while True:
            command, payload = connection.recv()
            if command == "close":
                break
            connection.send(call_and_report(lambda command=command, payload=payload: serve(command, payload)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent is gone
    finally:
        server.close()
