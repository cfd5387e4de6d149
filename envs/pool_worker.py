"""The process that steps some of a pool's environments. Started by `envs.pool`, never by hand."""

from __future__ import annotations

import signal
import traceback
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from envs.config import EnvConfig
from envs.registry import Environment, make_env, spec_of
from pixio_robot.errors import UserError
from pixio_robot.types import Frame, StepResult


def image_layout(config: EnvConfig) -> tuple[list[str], tuple[int, int, int, int]]:
    """The cameras in their order in shared memory, and the shape of one slot's block."""
    spec = spec_of(config)
    return list(spec.cameras), (len(spec.cameras), config.image_size, config.image_size, 3)


def run_worker(connection: Connection, memory: Any, config: EnvConfig, slots: list[int]) -> None:
    """Serve `reset` and `step` for these slots until told to close or the parent is gone.

    memory: a shared byte array with one image block for every slot. Answers are ("ok", value),
    ("user_error", message) or ("error", traceback).
    """
    # Ctrl-C reaches the whole process group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cameras, shape = image_layout(config)
    blocks = np.frombuffer(memory, np.uint8).reshape(len(slots), *shape) if memory is not None else None
    rows = {slot: row for row, slot in enumerate(slots)}
    environments: dict[int, Environment] = {}

    def strip(slot: int, frame: Frame) -> Frame:
        if frame.images and blocks is not None:
            for index, camera in enumerate(cameras):
                blocks[rows[slot], index] = frame.images[camera]
        return Frame({}, frame.state)

    def environment(slot: int) -> Environment:
        if slot not in environments:
            environments[slot] = make_env(config)
        return environments[slot]

    def serve(command: str, payload: dict[int, tuple[Any, bool]]) -> dict[int, Frame] | dict[int, StepResult]:
        if command == "reset":
            return {
                slot: strip(slot, environment(slot).reset(seed, render)) for slot, (seed, render) in payload.items()
            }
        results = {}
        for slot, (action, render) in payload.items():
            result = environment(slot).step(action, render)
            result.frame = strip(slot, result.frame)
            results[slot] = result
        return results

    def warm_up() -> None:
        # The first step compiles robosuite's controller for seconds; that must not count against a step's time.
        first = environment(slots[0])
        first.reset(0, render=bool(cameras))
        first.step(np.zeros(first.spec.action_dim), render=False)

    try:
        connection.send(_answer(warm_up))
        while True:
            command, payload = connection.recv()
            if command == "close":
                break
            connection.send(_answer(lambda command=command, payload=payload: serve(command, payload)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent is gone
    finally:
        for env in environments.values():
            env.close()


def _answer(call: Any) -> tuple[str, Any]:
    try:
        return "ok", call()
    except UserError as error:
        return "user_error", str(error)
    except Exception:
        return "error", traceback.format_exc()
