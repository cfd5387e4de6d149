"""Policy server: one process, one policy, many connections.

Policy calls run one at a time in a separate thread, so that the event loop never waits for the device.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import hmac
import ipaddress
import logging
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

import numpy as np

from pixio_robot.data.actions.pose_columns import find_quaternion_columns
from pixio_robot.errors import UserError
from pixio_robot.fields import check_fields, number
from pixio_robot.observation_checks import check_actions, check_observation, check_task
from pixio_robot.serving.messages import LARGEST_MESSAGE, PROTOCOL, pack, unpack
from pixio_robot.serving.policy_thread import PolicyThread
from pixio_robot.types import DemoSpec

REMEMBERED_CALLS = 10_000
REQUEST_OVERHEAD = 2**20
"""Bytes; for everything of a request but the arrays: names, shapes, the task."""


@dataclasses.dataclass(kw_only=True)
class ServeConfig:
    """Where and how a policy is served."""

    host: str = "127.0.0.1"
    """Address to listen on; the default is reachable from this machine only."""
    port: int = number(8765, at_least=0, below=2**16)
    """TCP port to listen on; 0 picks a free one."""
    token: str | None = None
    """Token that clients must present, at least 8 ASCII characters; None: generate one and print it."""
    warmup: int = number(5, at_least=0)
    """Policy calls made before clients are accepted: the first calls compile and allocate."""

    def __post_init__(self) -> None:
        check_fields(self)
        try:
            ipaddress.ip_address(self.host)
        except ValueError as error:
            raise UserError(f"host={self.host!r} must be an IP address, such as 127.0.0.1 or 0.0.0.0.") from error
        token = self.token
        if token is not None and (len(token) < 8 or not all("!" <= character <= "~" for character in token)):
            raise UserError("token must have at least 8 characters, all of them printable ASCII and none a space.")


@dataclasses.dataclass(kw_only=True)
class ServedPolicy:
    """What the server needs to know about a policy."""

    spec: DemoSpec
    cameras: list[str]
    observation_steps: int
    execute: int
    plan: Callable[[dict[str, np.ndarray], np.ndarray, int, int, str | None], np.ndarray]
    """(images[camera] uint8 (t, h, w, 3), state (t, s), episode seed, step, task) -> actions (n, a), n >= execute."""
    ensemble_weight: float | None = None
    """As in `RecedingHorizon`; clients do the averaging."""
    tasks: list[str] = dataclasses.field(default_factory=list)
    """Tasks that a client must choose from; empty for a policy that takes no task."""
    state_range: tuple[Sequence[float], Sequence[float]] | None = None
    """Minimum and maximum state (s,) in the demonstrations; None for a policy that does not use the state."""

    def check(self, message: dict[str, Any]) -> None:
        """Raise UserError naming the mismatch if an observation does not fit the policy's DemoSpec."""
        images = message.get("images")
        if not isinstance(images, dict) or images.keys() != set(self.cameras):
            given = list(images) if isinstance(images, dict) else images
            raise UserError(f"images must contain exactly the cameras {sorted(self.cameras)}, not {given}.")
        check_observation(self.spec, images, message.get("state"), (self.observation_steps,))
        for key in ("seed", "step"):
            if not isinstance(message.get(key), int):
                raise UserError(f"{key} must be an integer, not {message.get(key)!r}.")
        if not isinstance(message.get("task"), str | None):
            raise UserError(f"task must be a string, not {message['task']!r}.")
        check_task(message.get("task"), self.tasks, self.spec.task)

    def zero_observation(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """An all-zero observation of the right shape, for warming up."""
        t, cameras = self.observation_steps, self.spec.cameras
        images = {name: np.zeros((t, cameras[name].height, cameras[name].width, 3), np.uint8) for name in self.cameras}
        return images, np.zeros((t, self.spec.state_dim), np.float32)

    def largest_message(self) -> int:
        """Bytes of the largest message to accept. Observations that are too large for the policy still fit if they are
        not extreme, so that they are refused with words."""
        images, state = self.zero_observation()
        observation = sum(image.nbytes for image in images.values()) + state.nbytes
        return max(LARGEST_MESSAGE, observation + REQUEST_OVERHEAD)


class PolicyServer:
    """Serves one policy to websocket clients; `run` serves until it is cancelled."""

    def __init__(self, served: ServedPolicy, config: ServeConfig, token: str) -> None:
        self._served, self._config, self._token = served, config, token
        self._thread = PolicyThread()
        self._milliseconds: collections.deque[float] = collections.deque(maxlen=REMEMBERED_CALLS)

    async def run(self, on_ready: Callable[[str], None] = lambda address: None) -> None:
        """Warm up, listen, and call `on_ready` with the address that clients connect to.

        Raises UserError if the port is in use.
        """
        from websockets.asyncio.server import serve

        loop = asyncio.get_running_loop()
        for _ in range(self._config.warmup):
            task = next(iter(self._served.tasks), None)
            await loop.run_in_executor(self._thread, self._served.plan, *self._served.zero_observation(), 0, 0, task)
        options: dict[str, Any] = {
            "max_size": self._served.largest_message(),
            # Pings keep an idle connection known to routers, and let TCP notice a client that vanished. They need no
            # answer in time: a client that sends a large observation over a slow link can only answer after it.
            "ping_timeout": None,
            "compression": None,
            "process_request": self._check_token,
        }
        try:
            server = await serve(self._handle_connection, self._config.host, self._config.port, **options)
        except OSError as error:
            raise UserError(f"Cannot listen on {self._config.host}:{self._config.port} ({error.strerror}).") from error
        async with server:
            host, port = next(iter(server.sockets)).getsockname()[:2]
            on_ready(f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}")
            await asyncio.get_running_loop().create_future()

    def latency(self) -> dict[str, float]:
        """Quantiles of the call latency in milliseconds, including the encoder and waiting for the calls of other
        clients, over the latest calls; empty before the first call."""
        if not self._milliseconds:
            return {}
        p50, p90, p99 = np.percentile(self._milliseconds, [50, 90, 99])
        return {"calls": len(self._milliseconds), "p50_ms": float(p50), "p90_ms": float(p90), "p99_ms": float(p99)}

    def _check_token(self, connection: Any, request: Any) -> Any:
        given = "".join(request.headers.get_all("Authorization"))
        if not hmac.compare_digest(given.encode(errors="replace"), f"Bearer {self._token}".encode()):
            return connection.respond(HTTPStatus.UNAUTHORIZED, "wrong or missing token\n")
        return None

    async def _handle_connection(self, connection: Any) -> None:
        from websockets.exceptions import ConnectionClosed

        served = self._served
        hello = {
            "protocol": PROTOCOL,
            "spec": served.spec.to_json(),
            "cameras": list(served.cameras),
            "observation_steps": served.observation_steps,
            "execute": served.execute,
            "ensemble_weight": served.ensemble_weight,
            "quaternions": find_quaternion_columns(served.spec.action_names),
            "tasks": list(served.tasks),
            "state_range": None if served.state_range is None else [list(ends) for ends in served.state_range],
        }
        with contextlib.suppress(ConnectionClosed):  # a client may disconnect while it is answered
            await connection.send(pack(hello))
            async for content in connection:
                try:
                    answer = await self._handle_request(content)
                except UserError as error:
                    answer = {"error": str(error)}
                except Exception as error:  # a policy of anybody's: neither its robot nor others should lose the server
                    logging.exception("A call of the policy failed.")
                    answer = {"error": f"The policy failed on the server: {type(error).__name__}: {error}"}
                await connection.send(pack(answer))

    async def _handle_request(self, content: bytes | str) -> dict[str, Any]:
        message = unpack(content)
        self._served.check(message)
        values = (message["images"], message["state"], message["seed"], message["step"], message.get("task"))
        began = time.perf_counter()
        actions = await asyncio.get_running_loop().run_in_executor(self._thread, self._served.plan, *values)
        milliseconds = 1000 * (time.perf_counter() - began)
        self._milliseconds.append(milliseconds)
        check_actions(actions)
        return {"actions": np.asarray(actions, np.float32), "milliseconds": milliseconds}
