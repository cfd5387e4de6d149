"""Client of a policy server, for the robot's computer. Needs numpy, msgpack and websockets, but not torch.

with PolicyClient("ws://127.0.0.1:8765", token) as policy:
    policy.reset(seed=0)
    while True:
        action = policy.act(Frame(images, state))
"""

from __future__ import annotations

import contextlib
import operator
import threading
import warnings
from collections.abc import Iterator

import numpy as np

from pixio_robot.errors import UserError
from pixio_robot.observation_checks import check_frame, check_task, copy_frame
from pixio_robot.receding_horizon import RecedingHorizon
from pixio_robot.serving.connection import ServerConnection
from pixio_robot.serving.messages import ENCODABLE_INTEGERS, PROTOCOL
from pixio_robot.state_range import StateRangeMonitor
from pixio_robot.types import DemoSpec, Frame


class PolicyClient:
    """One connection that runs one episode at a time, for one thread. The server is called once per chunk of `execute`
    actions. After a time-out, or a call that Ctrl-C interrupted, the connection is closed: make a new client.

    `task`: the task to do, for a policy with several `tasks`; it may be changed between episodes. The first state far
    outside the range of the training demonstrations causes a warning.
    """

    def __init__(self, address: str, token: str, timeout_s: float = 30.0, task: str | None = None) -> None:
        """`address`: ws://HOST:PORT, as printed by `serve`; connections are direct, whatever `http_proxy` says.
        `timeout_s`: for connecting, and for every request together with its answer.

        Raises UserError if no server answers, the token is rejected, the server speaks another protocol, or its policy
        does not support the task.
        """
        self._connection = ServerConnection(address, token, timeout_s)
        self._lock = threading.RLock()
        try:
            hello = self._connection.exchange(None)
            if hello.get("protocol") != PROTOCOL:
                raise UserError(f"{address} speaks protocol {hello.get('protocol')}, this client {PROTOCOL}.")
            self.spec = DemoSpec.from_json(hello["spec"])
            self.cameras: list[str] = hello["cameras"]
            self.observation_steps: int = hello["observation_steps"]
            self.execute: int = hello["execute"]
            self.ensemble_weight: float | None = hello["ensemble_weight"]
            self.quaternions: list[int] = hello.get("quaternions", [])
            self.tasks: list[str] = hello.get("tasks", [])
            self.task = task
            self.watch = StateRangeMonitor.of(self.spec.state_names, hello.get("state_range"))
            """Warns once about a state far outside the demonstrations; None for a policy that does not use it."""
            self.reset(0)
        except BaseException:  # KeyboardInterrupt too
            self.close()
            raise

    @property
    def task(self) -> str | None:
        """The task to do. Setting it raises UserError unless it is one of `tasks`."""
        return self._task

    @task.setter
    def task(self, task: str | None) -> None:
        check_task(task, self.tasks, self.spec.task)
        self._task = task

    def reset(self, seed: int) -> None:
        """Start a new episode; `seed` determines the noise of the policy's sampler.

        Raises UserError unless `seed` is an integer, of Python or numpy, that fits in 64 bits.
        """
        try:
            number = operator.index(seed)
        except TypeError as error:
            raise UserError(f"seed={seed!r} must be an integer.") from error
        if number not in ENCODABLE_INTEGERS:
            raise UserError(f"seed={number} must be from {ENCODABLE_INTEGERS.start} to {ENCODABLE_INTEGERS.stop - 1}.")
        with self._exclusive_use():
            self._seed = number
            self._episode = RecedingHorizon(
                self.observation_steps, self.execute, self.ensemble_weight, self.quaternions
            )

    @property
    def needs_images(self) -> bool:
        """Whether the policy will use the next frame's images; if not, they may be left out."""
        return bool(self.cameras) and self._episode.uses_next_frame

    def act(self, frame: Frame) -> np.ndarray:
        """The action (a,) for the newest frame, in physical units. The frame's arrays may be reused afterwards.

        Raises UserError if the frame does not match the policy, or the policy fails on the server; the frame is then
        discarded, and you may pass it again or another one; or if the server does not answer in time, or the connection
        is closed.
        """
        with self._exclusive_use():
            # Checked first, so that an invalid frame never enters the history.
            state = check_frame(self.spec, self.cameras, frame, images_needed=self._episode.uses_next_frame)
            if self.watch is not None and (words := self.watch.check(state)):
                warnings.warn(words, stacklevel=2)
            self._episode.add_frame(copy_frame(frame, self.cameras) if self._episode.retains_next_frame else frame)
            if self._episode.needs_chunk:
                self._episode.add_chunk(self._request_actions())
            return self._episode.next_action()

    @contextlib.contextmanager
    def _exclusive_use(self) -> Iterator[None]:
        """Raise UserError if another thread is in here: the frames of two threads are not one episode."""
        # Reentrant, so that nothing that strikes between `acquire` and `try` locks the thread itself out.
        if not self._lock.acquire(blocking=False):
            raise UserError("This PolicyClient is in use by another thread: make one client for each thread.")
        try:
            yield
        finally:
            self._lock.release()

    def _request_actions(self) -> np.ndarray:
        frames = self._episode.frames
        images = {name: np.stack([frame.images[name] for frame in frames]) for name in self.cameras}
        state = np.stack([np.asarray(frame.state, np.float32) for frame in frames])
        moment = {"seed": self._seed, "step": self._episode.step, "task": self.task}
        answer = self._connection.exchange({"images": images, "state": state, **moment})
        if "error" in answer:
            raise UserError(answer["error"])
        return answer["actions"]

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> PolicyClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
