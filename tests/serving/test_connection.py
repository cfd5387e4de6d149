"""A connection to a policy server keeps its deadline, and ends with the first request that stays unanswered."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import websockets.asyncio.server
import websockets.sync.client
from demo_data import SPEC

from pixio_robot.errors import UserError
from pixio_robot.serving import server
from pixio_robot.serving.client import PolicyClient
from pixio_robot.serving.server import PolicyServer, ServeConfig, ServedPolicy
from pixio_robot.types import CameraSpec, Frame

TOKEN = "a-token-for-tests"
LONG_S = 60
"""Nothing waits for so long unless it hangs."""
SIDE = 2400
"""Pixels; an image of 17 MB is more than the buffers between two sockets hold."""


def echo(images: dict, state: np.ndarray, seed: int, step: int, task: str | None) -> np.ndarray:
    return state[-1:]


def seed_of(images: dict, state: np.ndarray, seed: int, step: int, task: str | None) -> np.ndarray:
    return np.full((1, 1), seed, np.float32)


def served(plan: Callable = echo, side: int = 0, observation_steps: int = 1) -> ServedPolicy:
    """A policy with one camera of `side` pixels, or none, whose action has the state's one dimension."""
    spec = dataclasses.replace(
        SPEC,
        cameras={"front": CameraSpec(height=side, width=side, fov_y_degrees=45)} if side else {},
        state_names=("x [m]",),
        action_names=("x [m]",),
    )
    return ServedPolicy(
        spec=spec, cameras=list(spec.cameras), observation_steps=observation_steps, execute=1, plan=plan
    )


def frame(value: float, side: int = 0) -> Frame:
    return Frame({"front": np.zeros((side, side, 3), np.uint8)} if side else {}, np.array([value], np.float32))


@contextlib.contextmanager
def serving(policy: ServedPolicy) -> Iterator[str]:
    """The address where `policy` is served, by another thread: only the main thread can be interrupted."""
    loop, addresses, ready = asyncio.new_event_loop(), [], threading.Event()

    def listening(address: str) -> None:
        addresses.append(address)
        ready.set()

    task = loop.create_task(PolicyServer(policy, ServeConfig(port=0, warmup=0), TOKEN).run(listening))

    def serve() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert ready.wait(LONG_S)
    try:
        yield addresses[0]
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()


class Relay:
    """A link to a server, for one client, which takes nothing more from the client while it is frozen."""

    def __init__(self, address: str) -> None:
        self._server = socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])))
        self._flows = threading.Event()
        self._flows.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"ws://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        self._flows.clear()

    def thaw(self) -> None:
        self._flows.set()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        self._listener.close()
        threading.Thread(target=self._pump, args=(self._server, client), daemon=True).start()
        self._pump(client, self._server, self._flows)

    def _pump(self, source: socket.socket, sink: socket.socket, flows: threading.Event | None = None) -> None:
        with contextlib.suppress(OSError):
            while (data := source.recv(2**16)) and (flows is None or flows.wait(LONG_S)):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def test_an_interrupted_call_gives_its_answer_to_no_other() -> None:
    answer = threading.Event()

    def plan(images: dict, state: np.ndarray, *moment: Any) -> np.ndarray:
        if state[-1, 0] == 2:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
            answer.wait(LONG_S)
        return state[-1:]

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with serving(served(plan)) as address, PolicyClient(address, TOKEN) as client:
            assert client.act(frame(1)).tolist() == [1]
            with pytest.raises(KeyboardInterrupt):
                client.act(frame(2))
            answer.set()
            client.reset(1)
            for value in (10, 11):
                with pytest.raises(UserError, match=r"closed \(an earlier call was interrupted.* new PolicyClient"):
                    client.act(frame(value))
            with PolicyClient(address, TOKEN) as another:
                assert another.act(frame(10)).tolist() == [10]
    finally:
        answer.set()
        signal.signal(signal.SIGALRM, before)


def test_the_deadline_holds_for_sending_too() -> None:
    """As if the server's machine froze or its cable were pulled, while an image is sent."""
    with serving(served(side=SIDE)) as address:
        relay = Relay(address)
        with PolicyClient(relay.address, TOKEN, timeout_s=2.0) as client:
            relay.freeze()
            with pytest.raises(UserError, match="did not answer within 2 s"):
                client.act(frame(1, SIDE))
            with pytest.raises(UserError, match=r"did not answer an earlier call within 2 s.* new PolicyClient"):
                client.act(frame(1, SIDE))
        relay.thaw()


def test_a_slow_link_is_cut_by_the_deadline_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image may take longer to send than websockets, at either end, waits for the answer to a ping."""
    pings = {"ping_interval": 0.1, "ping_timeout": 0.1}  # both are 20 s, unless the caller says otherwise
    for module, name in ((websockets.asyncio.server, "serve"), (websockets.sync.client, "connect")):
        original = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *words, original=original, **given: original(*words, **(pings | given))
        )
    with serving(served(side=SIDE)) as address:
        relay = Relay(address)
        with PolicyClient(relay.address, TOKEN, timeout_s=LONG_S) as client:
            relay.freeze()
            threading.Timer(1.0, relay.thaw).start()
            assert client.act(frame(3, SIDE)).tolist() == [3]


def test_observations_may_be_large() -> None:
    steps = 4  # 69 MB
    with (
        serving(served(side=SIDE, observation_steps=steps)) as address,
        PolicyClient(address, TOKEN, timeout_s=LONG_S) as client,
    ):
        assert client.act(frame(3, SIDE)).tolist() == [3]


def test_what_is_too_large_for_the_policy_is_refused_with_words() -> None:
    """By the server, too: other clients may not check what they send."""
    with serving(served(side=8)) as address, PolicyClient(address, TOKEN, timeout_s=LONG_S) as client:
        message = {"images": {"front": np.zeros((1, SIDE, SIDE, 3), np.uint8)}, "state": np.zeros((1, 1), np.float32)}
        answer = client._connection.exchange(message)
        assert "must be uint8 of shape (1, 8, 8, 3)" in answer["error"]


@pytest.mark.parametrize("name", ["http_proxy", "https_proxy", "all_proxy", "socks_proxy"])
def test_proxies_are_for_others(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for other in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    with serving(served()) as address, PolicyClient(address, TOKEN) as client:
        assert client.act(frame(1)).tolist() == [1]


def test_a_client_is_for_one_thread() -> None:
    asked, answer = threading.Event(), threading.Event()

    def plan(images: dict, state: np.ndarray, *moment: Any) -> np.ndarray:
        asked.set()
        assert answer.wait(LONG_S)
        return state[-1:]

    with serving(served(plan)) as address, PolicyClient(address, TOKEN) as client:
        first = []
        thread = threading.Thread(target=lambda: first.append(client.act(frame(1)).tolist()), daemon=True)
        thread.start()
        assert asked.wait(LONG_S)
        for other in (lambda: client.act(frame(2)), lambda: client.reset(1)):
            with pytest.raises(UserError, match="in use by another thread: make one client for each thread"):
                other()
        answer.set()
        thread.join()
        assert first == [[1]]
        assert client.act(frame(3)).tolist() == [3]


def test_another_thread_may_close_it_even_while_it_sends() -> None:
    with serving(served(side=SIDE)) as address:
        relay = Relay(address)
        client = PolicyClient(relay.address, TOKEN, timeout_s=LONG_S)
        relay.freeze()
        threading.Timer(0.3, client.close).start()
        with pytest.raises(UserError, match="connection to the policy server is closed"):
            client.act(frame(1, SIDE))
        relay.thaw()


@pytest.mark.parametrize("timeout_s", [0, -1, float("inf"), float("nan"), None, "3"])
def test_a_timeout_is_seconds(timeout_s: Any) -> None:
    with pytest.raises(UserError, match=r"timeout_s=.* must be seconds, above 0"):
        PolicyClient("ws://127.0.0.1:9", TOKEN, timeout_s=timeout_s)


def test_a_server_of_another_version_is_named_and_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PROTOCOL", 1)
    with serving(served()) as address:
        before = threading.active_count()
        with pytest.raises(UserError, match=rf"{address} speaks protocol 1, this client 2"):
            PolicyClient(address, TOKEN)
        deadline = time.monotonic() + 10
        while threading.active_count() > before and time.monotonic() < deadline:  # the server's thread ends by itself
            time.sleep(0.01)
        assert threading.active_count() == before  # an open connection has one


@pytest.mark.parametrize("token", [f"{TOKEN}\n", f"{TOKEN} ", f"{TOKEN}\r\nHost: x", "schlüssel"])
def test_a_token_with_what_no_token_has_is_not_repeated(token: str) -> None:
    """Such as that of a file, with the end of its line: errors end up in logs."""
    with pytest.raises(UserError, match=r"token must be as `serve` prints it: without") as error:
        PolicyClient("ws://127.0.0.1:9", token)
    assert token.strip() not in str(error.value)


def test_a_call_that_failed_may_be_repeated() -> None:
    fails, looked_at = [], []

    def plan(images: dict, state: np.ndarray, *moment: Any) -> np.ndarray:
        looked_at.append(state[:, 0].tolist())
        if fails:
            raise RuntimeError(fails.pop())
        return state[-1:]

    with serving(served(plan, observation_steps=2)) as address, PolicyClient(address, TOKEN) as client:
        client.act(frame(1))
        client.act(frame(2))
        fails.append("out of memory")
        with pytest.raises(UserError, match="out of memory"):
            client.act(frame(3))
        assert client.act(frame(3)).tolist() == [3]
    assert looked_at == [[1, 1], [1, 2], [2, 3], [2, 3]]


@pytest.mark.parametrize("seed", [np.int64(7), np.uint8(7), np.array(7)])
def test_a_seed_may_be_of_numpy(seed: Any) -> None:
    with serving(served(seed_of)) as address, PolicyClient(address, TOKEN) as client:
        client.reset(seed)
        assert client.act(frame(1)).tolist() == [7]


@pytest.mark.parametrize("seed", [2**70, -(2**63) - 1, 1.0, "1", None])
def test_a_seed_that_cannot_be_sent_is_refused_at_once(seed: Any) -> None:
    with serving(served(seed_of)) as address, PolicyClient(address, TOKEN) as client:
        client.reset(3)
        with pytest.raises(UserError, match=r"seed=.* must be"):
            client.reset(seed)
        assert client.act(frame(1)).tolist() == [3]
