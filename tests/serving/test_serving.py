"""A served policy acts as the policy at hand, and refuses what does not fit it."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import msgpack
import numpy as np
import pytest
from demo_data import SPEC, make_store

from pixio_robot.cli import serve
from pixio_robot.cli.main import dispatch
from pixio_robot.errors import UserError
from pixio_robot.serving.client import PolicyClient
from pixio_robot.serving.messages import pack, unpack
from pixio_robot.serving.server import PolicyServer, ServeConfig, ServedPolicy
from pixio_robot.types import Frame

PROGRAM = Path(sys.executable).with_name("pixio-robot")
TOKEN = "a-token-for-tests"
EXECUTE = 3


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("served")
    make_store(directory / "demos")
    words = ["encoder=random", "encoder.encoder.size=micro", "encoder.encoder.patch=8", "encoder.encoder.resize=16"]
    words += ["policy=bc", "policy.observation_steps=2", "loop.steps=2", "batch_size=2", "device=cpu"]
    assert dispatch(["train", f"data={directory}/demos", f"out={directory}/policy", *words]) == 0
    return directory / "policy"


@pytest.fixture(scope="module")
def address(checkpoint: Path) -> Iterator[str]:
    words = [f"checkpoint={checkpoint}", f"execute={EXECUTE}", "port=0", f"token={TOKEN}", "device=cpu", "warmup=1"]
    server = subprocess.Popen(
        [PROGRAM, "serve", *words], stdout=subprocess.PIPE, text=True, preexec_fn=as_in_a_script_s_background
    )
    assert server.stdout is not None
    line = server.stdout.readline()
    yield line.split(" at ")[1].split(",")[0]
    server.send_signal(signal.SIGINT)
    rest = server.stdout.read()
    assert server.wait(200) == 0
    assert rest.startswith("serve: ")


def as_in_a_script_s_background() -> None:
    """A shell without job control ignores Ctrl-C for what it starts by `&`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def frames(n: int) -> list[Frame]:
    rng = np.random.default_rng(0)
    return [
        Frame(
            {name: rng.integers(0, 256, (c.height, c.width, 3), np.uint8) for name, c in SPEC.cameras.items()},
            rng.normal(size=3).astype(np.float32),
        )
        for _ in range(n)
    ]


def test_acts_as_the_policy_itself(checkpoint: Path, address: str) -> None:
    from policies.chunking import ChunkedActor
    from policies.persistence import load_policy

    local = ChunkedActor(load_policy(checkpoint / "model", "cpu"), EXECUTE, batch_size=1)
    remote = [PolicyClient(address, TOKEN) for _ in range(2)]
    for slot, seed in ((0, 5), (1, 6)):
        local.reset(slot, seed)
        remote[slot].reset(seed)
    for frame in frames(8):
        assert [local.needs_images(slot) for slot in (0, 1)] == [one.needs_images for one in remote]
        here = local.act({0: frame, 1: frame})
        for slot in (0, 1):
            np.testing.assert_allclose(here[slot], remote[slot].act(frame), atol=1e-6)
    for one in remote:
        one.close()


def test_a_client_averages_predictions_as_the_policy_at_hand(checkpoint: Path) -> None:
    from pixio_robot.cli.serve import load_served_policy
    from policies.acting import ActingConfig
    from policies.chunking import ChunkedActor
    from policies.persistence import load_policy

    acting = ActingConfig(execute=1, ensemble_weight=0.3)
    local = ChunkedActor(load_policy(checkpoint / "model", "cpu"), 1, batch_size=1, ensemble_weight=0.3)
    local.reset(0, 5)
    seen = frames(5)
    here = [local.act({0: frame})[0] for frame in seen]

    async def talk() -> list[np.ndarray]:
        ready = asyncio.get_running_loop().create_future()
        server = PolicyServer(load_served_policy(str(checkpoint), acting, "cpu"), ServeConfig(port=0, warmup=0), TOKEN)
        running = asyncio.create_task(server.run(ready.set_result))
        address = await ready

        def act() -> list[np.ndarray]:
            with PolicyClient(address, TOKEN) as client:
                client.reset(5)
                return [client.act(frame) for frame in seen]

        there = await asyncio.to_thread(act)
        running.cancel()
        return there

    np.testing.assert_allclose(here, asyncio.run(talk()), atol=1e-6)


def test_a_client_averages_quaternions_as_rotations() -> None:
    names = ["gripper", *(f"eef_quat.{axis}" for axis in "xyzw")]
    answers = iter([[0, 0, 0, 0, 1], [0, 0, 0, -0.6, -0.8]])
    served = ServedPolicy(
        spec=dataclasses.replace(SPEC, action_names=names),
        cameras=[],
        observation_steps=1,
        execute=1,
        plan=lambda *_: np.tile(np.array(next(answers), np.float32), (2, 1)),
        ensemble_weight=0.0,
    )

    def act(address: str) -> None:
        with PolicyClient(address, TOKEN) as client:
            state = Frame({}, np.zeros(3, np.float32))
            client.act(state)
            np.testing.assert_allclose(client.act(state), [0, 0, 0, -(0.1**0.5), -(0.9**0.5)], atol=1e-6)

    serving(served, act)


def test_a_served_policy_is_told_its_task_and_draws_as_the_policy_at_hand(checkpoint: Path, tmp_path: Path) -> None:
    import torch

    from pixio_robot.types import Observation
    from policies.acting import ActingConfig
    from policies.chunking import get_call_seed
    from policies.config import ConditioningConfig
    from policies.flow import FlowConfig
    from policies.persistence import load_policy, save_policy
    from policies.registry import build_policy

    other = load_policy(checkpoint)
    blind = FlowConfig(conditioning=ConditioningConfig(goal_dim=2), horizon=4)
    policy = build_policy("flow", blind, other.spec, other.statistics, None)
    policy.goals = {"push": [1.0, 0.0], "pick": [0.0, 1.0]}
    save_policy(tmp_path / "policy", policy.eval())
    served = serve.load_served_policy(str(tmp_path / "policy"), ActingConfig(noise_seed=4), "cpu")
    assert served.tasks == ["push", "pick"]
    state = frames(1)[0].state[None]
    expected = policy.act(
        Observation({}, torch.from_numpy(state)[None], goal=torch.tensor([[0.0, 1.0]])), [get_call_seed(5, 3, 4)]
    )
    np.testing.assert_allclose(served.plan({}, state, 5, 3, "pick"), expected[0, :2], atol=1e-6)


def test_a_frames_arrays_may_be_reused(address: str) -> None:
    """As a camera driver does that fills one buffer; the policy looks back over two frames."""
    with PolicyClient(address, TOKEN) as fresh, PolicyClient(address, TOKEN) as reused:
        buffer = frames(1)[0]
        for frame in frames(2 * EXECUTE):
            for name, image in frame.images.items():
                np.copyto(buffer.images[name], image)
            np.copyto(buffer.state, frame.state)
            np.testing.assert_allclose(reused.act(buffer), fresh.act(frame), atol=1e-6)


def test_tells_what_it_is(address: str) -> None:
    with PolicyClient(address, TOKEN) as client:
        assert client.spec == SPEC or not client.spec.differences(SPEC)
        assert client.cameras == ["front", "hand"]
        assert client.observation_steps == 2


def test_refuses_what_does_not_fit(address: str) -> None:
    good = frames(1)[0]
    bad = {
        r"images\['hand'\] must be uint8 of shape \(8, 8, 3\)": Frame(
            dict(good.images) | {"hand": np.zeros((9, 8, 3), np.uint8)}, good.state
        ),
        "state must be float32": Frame(good.images, good.state[:2]),
        r"non-finite value: y \[m\]": Frame(good.images, np.array([0, np.nan, 0], np.float32)),
        "no image of camera 'hand'": Frame({"front": good.images["front"]}, good.state),
    }
    with PolicyClient(address, TOKEN) as client:
        # What is refused leaves nothing behind: the policy looks at two frames, and none of them is one of these.
        expected = [client.act(good) for _ in range(EXECUTE + 1)]
        client.reset(0)
        for step in range(EXECUTE + 1):
            for message, frame in bad.items():
                if step in (0, EXECUTE - 1, EXECUTE):
                    with pytest.raises(UserError, match=message):
                        client.act(frame)
            assert np.array_equal(client.act(good), expected[step])


def test_what_does_not_fit_is_refused_between_two_questions_too(address: str) -> None:
    good = frames(1)[0]
    bad = {
        r"A frame must be Frame\(images, state\).*, not dict": {"images": good.images, "state": good.state},
        "non-finite value": Frame({}, np.array([0, np.nan, 0], np.float32)),
        r"of shape \(3,\), not float32 \(2,\)": Frame({}, good.state[:2]),
        r"images\['hand'\] must be uint8": Frame({"hand": np.zeros((8, 8, 3))}, good.state),
    }
    with PolicyClient(address, TOKEN) as client:
        expected = [client.act(good) for _ in range(EXECUTE)]
        client.reset(0)
        client.act(good)
        assert not client.needs_images
        for message, frame in bad.items():
            with pytest.raises(UserError, match=message):
                client.act(frame)  # pyright: ignore[reportArgumentType]
        assert np.array_equal(client.act(Frame({}, good.state)), expected[1])


def test_a_state_in_other_units_is_warned_of_once() -> None:
    served = ServedPolicy(
        spec=SPEC,
        cameras=[],
        observation_steps=1,
        execute=5,
        plan=lambda *_: np.zeros((5, 2), np.float32),
        state_range=([-1.5, -1.5, 0.2], [1.5, 1.0, 0.2]),
    )

    def act(address: str) -> None:
        with PolicyClient(address, TOKEN) as client:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)
                client.act(Frame({}, np.array([3, -4, 5], np.float32)))
            with pytest.warns(
                UserWarning, match=r"y \[m\] is 90, in the demonstrations -1\.5 to 1\. Is it in the same units"
            ) as said:
                client.act(Frame({}, np.array([0, 90, 0], np.float32)))
            # Other tests' sockets may be collected meanwhile, of which Python warns too.
            (ours,) = [str(one.message) for one in said if one.category is UserWarning]
            assert "x [m]" not in ours
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)
                client.act(Frame({}, np.array([1000, 90, 0], np.float32)))

    serving(served, act)


def test_the_server_refuses_too_what_other_clients_may_send() -> None:
    served = ServedPolicy(spec=SPEC, cameras=["hand"], observation_steps=2, execute=1, plan=lambda *_: np.zeros((1, 2)))
    good = {"images": {"hand": np.zeros((2, 8, 8, 3), np.uint8)}, "state": np.zeros((2, 3), np.float32)}
    good |= {"seed": 0, "step": 0}
    served.check(good)
    nan = np.array([[0, 0, 0], [0, np.nan, 0]], np.float32)
    for message, changed in {
        r"images\['hand'\] must be uint8 of shape \(2, 8, 8, 3\)": {"images": {"hand": np.zeros((8, 8, 3), np.uint8)}},
        r"images must contain exactly the cameras \['hand'\], not \[\]": {"images": {}},
        r"the cameras \['hand'\], not \['hand', b'hand'\]": {"images": {"hand": 1, b"hand": 1}},
        "state must be float32": {"state": np.zeros((2, 3))},
        r"non-finite value: y \[m\]": {"state": nan},
        "seed must be an integer": {"seed": "0"},
    }.items():
        with pytest.raises(UserError, match=message):
            served.check(good | changed)


def test_a_policy_of_several_tasks_must_be_told_one() -> None:
    told: list = []

    def plan(images: dict, state: np.ndarray, seed: int, step: int, task: str | None) -> np.ndarray:
        told.append((seed, step, task))
        return np.zeros((1, 2), np.float32)

    served = ServedPolicy(spec=SPEC, cameras=[], observation_steps=1, execute=1, plan=plan, tasks=["push", "pick"])

    async def talk() -> None:
        ready = asyncio.get_running_loop().create_future()
        server = PolicyServer(served, ServeConfig(port=0, warmup=1), TOKEN)
        running = asyncio.create_task(server.run(ready.set_result))
        address = await ready
        frame = Frame({}, np.zeros(3, np.float32))

        def act() -> None:
            with PolicyClient(address, TOKEN, task="pick") as client:
                assert client.tasks == ["push", "pick"]
                client.reset(7)
                client.act(frame)
                client.act(frame)
                with pytest.raises(UserError, match="Did you mean 'push'"):
                    client.task = "pus"
                assert client.task == "pick"
            for task, message in ((None, "needs a task: set task= to one of 'push', 'pick'"), ("pull", "Unknown task")):
                with pytest.raises(UserError, match=message):
                    PolicyClient(address, TOKEN, task=task)

        await asyncio.to_thread(act)
        running.cancel()

    asyncio.run(talk())
    assert told == [(0, 0, "push"), (7, 0, "pick"), (7, 1, "pick")]  # the warm-up, then the client's
    message = {"images": {}, "state": np.zeros((1, 3), np.float32), "seed": 0, "step": 0}
    with pytest.raises(UserError, match="needs a task"):
        served.check(message)


def test_actions_that_are_not_finite_are_not_sent() -> None:
    served = ServedPolicy(
        spec=SPEC, cameras=[], observation_steps=1, execute=1, plan=lambda *_: np.full((1, 2), np.nan, np.float32)
    )
    message = {"images": {}, "state": np.zeros((1, 3), np.float32), "seed": 0, "step": 0, "task": None}
    with pytest.raises(UserError, match="returned a non-finite action"):
        asyncio.run(PolicyServer(served, ServeConfig(), TOKEN)._handle_request(pack(message)))


def test_a_task_is_a_text() -> None:
    served = ServedPolicy(
        spec=SPEC, cameras=[], observation_steps=1, execute=1, plan=lambda *_: np.zeros((1, 2), np.float32)
    )
    message = {"images": {}, "state": np.zeros((1, 3), np.float32), "seed": 0, "step": 0}
    served.check(message | {"task": None})
    served.check(message | {"task": SPEC.task})
    with pytest.raises(UserError, match="task must be a string"):
        served.check(message | {"task": ["push"]})
    with pytest.raises(UserError, match="only does the task Test and cannot be asked for 'push'"):
        served.check(message | {"task": "push"})


def test_an_answer_that_comes_late_is_not_taken_for_the_next_one(caplog: pytest.LogCaptureFixture) -> None:
    given_up = threading.Event()

    def plan(images: dict, state: np.ndarray, seed: int, step: int, task: str | None) -> np.ndarray:
        assert not seed or given_up.wait(60)
        return np.full((1, 2), seed, np.float32)

    served = ServedPolicy(spec=SPEC, cameras=[], observation_steps=1, execute=1, plan=plan)
    frame = Frame({}, np.zeros(3, np.float32))

    def act(address: str) -> None:
        with PolicyClient(address, TOKEN, timeout_s=3.0) as client:
            client.reset(1)
            with pytest.raises(UserError, match=r"did not answer within 3 s; the connection is closed"):
                client.act(frame)
            given_up.set()
            client.reset(0)
            with pytest.raises(UserError, match="connection to the policy server is closed"):
                client.act(frame)
        with PolicyClient(address, TOKEN) as client:
            assert client.act(frame).tolist() == [0, 0]

    serving(served, act)
    errors = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not errors  # a client that goes is no fault of the server's


def test_a_call_that_fails_is_told_and_the_connection_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def plan(images: dict, state: np.ndarray, seed: int, step: int, task: str | None) -> np.ndarray:
        if seed:
            raise RuntimeError("out of memory")
        return np.zeros((1, 2), np.float32)

    frame = Frame({}, np.zeros(3, np.float32))

    def act(address: str) -> None:
        with PolicyClient(address, TOKEN) as client:
            client.reset(1)
            with pytest.raises(UserError, match="The policy failed on the server: RuntimeError: out of memory"):
                client.act(frame)
            client.reset(0)
            assert client.act(frame).tolist() == [0, 0]

    serving(ServedPolicy(spec=SPEC, cameras=[], observation_steps=1, execute=1, plan=plan), act)
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.exc_info is not None  # the server's log has the traceback


def test_strange_requests_are_turned_away() -> None:
    served = ServedPolicy(
        spec=SPEC, cameras=[], observation_steps=1, execute=1, plan=lambda *_: np.zeros((1, 2), np.float32)
    )

    def ask(address: str) -> None:
        host, _, port = address.removeprefix("ws://").rpartition(":")
        for headers in (b"", b"Authorization: Bearer \xff\xfe\r\n", f"Authorization: Bearer {TOKEN}\r\n".encode() * 2):
            upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            with socket.create_connection((host, int(port)), timeout=10) as connection:
                connection.sendall(
                    b"GET / HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Version: 13\r\n" + upgrade + headers + b"\r\n"
                )
                assert connection.recv(100).startswith(b"HTTP/1.1 401")

    serving(served, ask)


def serving(served: ServedPolicy, client: Callable[[str], None]) -> None:
    """Run `client` in a thread, given the address where `served` is served."""

    async def talk() -> None:
        ready = asyncio.get_running_loop().create_future()
        running = asyncio.create_task(PolicyServer(served, ServeConfig(port=0, warmup=0), TOKEN).run(ready.set_result))
        await asyncio.to_thread(client, await ready)
        running.cancel()

    asyncio.run(talk())


def test_sigterm_ends_it_well_too(checkpoint: Path) -> None:
    words = [f"checkpoint={checkpoint}", "port=0", f"token={TOKEN}", "device=cpu", "warmup=1"]
    server = subprocess.Popen([PROGRAM, "serve", *words], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    address = server.stdout.readline().split(" at ")[1].split(",")[0]
    with PolicyClient(address, TOKEN) as client:
        client.act(frames(1)[0])
        server.send_signal(signal.SIGTERM)
        assert server.wait(200) == 0
        assert "1 calls, p50" in server.stdout.read()
        client.reset(0)
        with pytest.raises(UserError, match="connection to the policy server is closed"):
            client.act(frames(1)[0])


def test_sigterm_ends_it_though_a_call_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "STOP_TIMEOUT_S", 0.1)
    stopped, waited_for, clients = threading.Event(), [], []

    def plan(images: dict, state: np.ndarray, seed: int, step: int, task: str | None) -> np.ndarray:
        os.kill(os.getpid(), signal.SIGTERM)
        waited_for.append(stopped.wait(60))
        return np.zeros((1, 2), np.float32)

    def act(address: str) -> None:
        with PolicyClient(address, TOKEN) as client, pytest.raises(UserError, match=r"connection .* is closed"):
            client.act(Frame({}, np.zeros(3, np.float32)))

    def ready(address: str) -> None:
        clients.append(threading.Thread(target=act, args=[address]))
        clients[0].start()

    served = ServedPolicy(spec=SPEC, cameras=[], observation_steps=1, execute=1, plan=plan)
    try:
        asyncio.run(serve._serve_until_signal(PolicyServer(served, ServeConfig(port=0, warmup=0), TOKEN), ready))
        assert not waited_for
    finally:
        stopped.set()
        clients[0].join()


ENDING = """
import asyncio
import sys
import threading
import numpy as np
import torch
from pixio_robot.serving.policy_thread import PolicyThread

def call():
    for number in range(100_000):  # what the thread's end has to give back takes longer than the interpreter's
        torch._C._stash_obj_in_tls(str(number), [number])

async def ask():
    loop, thread = asyncio.get_running_loop(), PolicyThread()
    await loop.run_in_executor(thread, call)
    if sys.argv[1] == "hangs":
        loop.run_in_executor(thread, threading.Event().wait)

asyncio.run(ask())
"""


@pytest.mark.parametrize("policy", ["is done", "hangs"])
def test_the_process_of_a_server_ends_well(policy: str) -> None:
    ended = subprocess.run([sys.executable, "-c", ENDING, policy], capture_output=True, text=True, timeout=200)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_refuses_strangers(address: str) -> None:
    with pytest.raises(UserError, match="token"):
        PolicyClient(address, "another-token")


def test_nobody_there() -> None:
    with pytest.raises(UserError, match="No policy server answers"):
        PolicyClient("ws://127.0.0.1:9", TOKEN, timeout_s=2)


@pytest.mark.parametrize("address", ["127.0.0.1:8911", "http://127.0.0.1:8911"])
def test_an_address_begins_with_ws(address: str) -> None:
    with pytest.raises(UserError, match=r"must be ws://HOST:PORT"):
        PolicyClient(address, TOKEN, timeout_s=2)


@pytest.mark.parametrize("address", ["ws://", "ws://127.0.0.1:many"])
def test_an_address_is_host_and_port(address: str) -> None:
    with pytest.raises(UserError, match=r"is not valid .* ws://HOST:PORT"):
        PolicyClient(address, TOKEN, timeout_s=2)


def test_the_client_does_not_need_torch() -> None:
    code = "import sys, pixio_robot.serving.client; print(*sys.modules)"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "numpy" in names
    assert not {"torch", "zarr", "mujoco", "hydra"} & set(names)


@pytest.mark.parametrize("array", [np.zeros((0, 3), np.uint8), np.arange(6, dtype=np.float32).reshape(2, 3).T])
def test_arrays_survive_the_wire(array: np.ndarray) -> None:
    back = unpack(pack({"x": array, "nested": {"y": array}}))
    np.testing.assert_array_equal(back["x"], array)
    np.testing.assert_array_equal(back["nested"]["y"], array)
    assert back["x"].dtype == array.dtype


@pytest.mark.parametrize("content", [b"", b"\xc1", b"\x01", "text", pack({"x": np.zeros(4, np.uint8)})[:-1]])
def test_strange_messages_are_refused(content: bytes | str) -> None:
    with pytest.raises(UserError, match="does not follow"):
        unpack(content)


@pytest.mark.parametrize(("code", "dtype"), [(2, "<f4"), (1, "<f8"), (1, "|O")])
def test_other_contents_are_refused(code: int, dtype: str) -> None:
    array = msgpack.packb([dtype, [1], bytes(8)])
    with pytest.raises(UserError, match=rf"does not follow .*unknown content {code} {re.escape(dtype)}"):
        unpack(msgpack.packb({"x": msgpack.ExtType(code, array)}))


@pytest.mark.parametrize("array", [np.array([object()]), np.zeros(2)])
def test_other_arrays_cannot_be_sent(array: np.ndarray) -> None:
    with pytest.raises(TypeError, match="cannot be sent"):
        pack({"x": array})


def test_settings_are_checked() -> None:
    for settings, message in (
        ({"host": "example"}, "host"),
        ({"port": 70000}, "port"),
        ({"token": "x"}, "token"),
        ({"token": "schlüssel"}, "ASCII"),
    ):
        with pytest.raises(UserError, match=message):
            ServeConfig(**settings)
    assert ServeConfig().host == "127.0.0.1"
