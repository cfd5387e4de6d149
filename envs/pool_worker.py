"""What steps some of a pool's environments, in a process or a Ray actor of its own. Started by `envs.pool`."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from envs.config import EnvConfig
from envs.egl_devices import take_turn
from envs.registry import Environment, make_env, spec_of
from pixio_robot.errors import UserError
from pixio_robot.types import Frame, StepResult

Answer = tuple[str, Any]
"""("ok", value), ("user_error", message) or ("error", traceback)."""


class SlotServer:
    """The environments of some slots. An environment is built when its slot is first reset, and its OpenGL context
    when a picture is first asked for, so a policy that never looks needs no graphics."""

    def __init__(self, config: EnvConfig, slots: Sequence[int]) -> None:
        self._config, self._slots = config, list(slots)
        self._environments: dict[int, Environment] = {}

    def warm_up(self) -> None:
        """The first step compiles robosuite's controller for seconds; that must not count against a step's time."""
        first = self._environment(self._slots[0])
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


def answer(call: Callable[[], Any]) -> Answer:
    try:
        return "ok", call()
    except UserError as error:
        return "user_error", str(error)
    except Exception:
        return "error", traceback.format_exc()


def frame_of(value: Frame | StepResult) -> Frame:
    return value.frame if isinstance(value, StepResult) else value


def image_layout(config: EnvConfig) -> tuple[list[str], tuple[int, int, int, int]]:
    """The cameras in their order in shared memory, and the shape of one slot's block."""
    spec = spec_of(config)
    return list(spec.cameras), (len(spec.cameras), config.image_size, config.image_size, 3)


def run_worker(
    connection: Connection, memory: Any, config: EnvConfig, slots: list[int], worker: int, egl_devices: list[int]
) -> None:
    """Serve `reset` and `step` for these slots until told to close or the parent is gone.

    memory: a shared byte array with one image block for every slot.
    """
    # Ctrl-C reaches the whole process group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    take_turn(worker, egl_devices)
    cameras, shape = image_layout(config)
    blocks = np.frombuffer(memory, np.uint8).reshape(len(slots), *shape) if memory is not None else None
    rows = {slot: row for row, slot in enumerate(slots)}
    server = SlotServer(config, slots)

    def serve(command: str, payload: dict[int, tuple[Any, bool]]) -> Any:
        results = server.serve(command, payload)
        for slot, value in results.items():
            frame = frame_of(value)
            if frame.images and blocks is not None:
                for index, camera in enumerate(cameras):
                    blocks[rows[slot], index] = frame.images[camera]
            frame.images = {}
        return results

    try:
        connection.send(answer(server.warm_up))
        while True:
            command, payload = connection.recv()
            if command == "close":
                break
            connection.send(answer(lambda command=command, payload=payload: serve(command, payload)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent is gone
    finally:
        server.close()
