"""Environments in a Python of their own (`env.python=`), whose packages cannot be installed beside ours.

LIBERO, for example, needs another robosuite than the rest of pixio-robot. The other Python runs `envs/hosted/serve.py`
and needs nothing of pixio-robot.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from envs.config import EnvConfig
from envs.hosted import wire
from envs.tasks import Simulator, name_in_simulator, split_module_and_id
from envs.third_party.base import SimulatorProcessDied, ThirdPartyImageEnv, ThirdPartyMujocoEnv
from envs.third_party.gymnasium import wrap_gymnasium_env
from pixio_robot.errors import UserError

_SERVER_DIRECTORY = Path(__file__).parents[1] / "hosted"
_LIBERO_TASKS = "libero_tasks"
"""The module there that registers LIBERO's tasks."""
_CLOSE_TIMEOUT_S = 10.0
"""Time for the other Python to end by itself."""
_CHECK_INTERVAL_S = 1.0
"""Time between looks at whether the other Python still runs."""
_LAST_OUTPUT_BYTES = 1 << 16
_ERROR_LINES = 12


@dataclasses.dataclass(frozen=True)
class _Registration:
    """What `GymnasiumImages` reads of `gymnasium.Env.spec`."""

    max_episode_steps: int | None
    nondeterministic: bool


class HostedEnv(gymnasium.Env):
    """The environment `name` of another Python; importing `module` there registers it.

    Raises UserError if that Python does not start or cannot make it, and SimulatorProcessDied if it ends later.
    """

    def __init__(self, python: str, module: str, name: str, settings: Mapping[str, Any], horizon: int | None) -> None:
        self._python = python
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        self._process = self._start()
        try:
            description = self._request("open", module=module, name=name, settings=dict(settings), horizon=horizon)
            self.versions: tuple[str, ...] = tuple(description["versions"])
            self.observation_space = space_from_description(description["observation_space"])
            self.action_space = space_from_description(description["action_space"])
        except BaseException as error:
            self.close()
            if isinstance(error, SimulatorProcessDied):
                raise UserError(f"env.python cannot serve an environment: {error}") from error
            raise
        self.metadata = description["metadata"]
        self.render_mode = description["render_mode"]
        self.spec: Any = _Registration(description["horizon"], description["nondeterministic"])

    def _start(self) -> subprocess.Popen[bytes]:
        request_pipe, answer_pipe = os.pipe(), os.pipe()
        # The main thread ends with this process; another one may end before its environments do. A process that one of
        # those started still ends by itself, when it has done what it is doing and finds its pipes closed.
        dies_with_thread = threading.current_thread() is threading.main_thread()
        words = [_SERVER_DIRECTORY / "serve.py", request_pipe[0], answer_pipe[1], int(dies_with_thread)]
        command = [self._python, *map(str, words)]
        try:
            # Its prints would end up between the lines of our progress; the last ones are part of our errors.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                pass_fds=(request_pipe[0], answer_pipe[1]),
            )
        except OSError as error:
            for end in (*request_pipe, *answer_pipe):
                os.close(end)
            raise UserError(f"env.python={self._python} cannot be run: {error.strerror}.") from error
        os.close(request_pipe[0])
        os.close(answer_pipe[1])
        self._requests, self._answers = os.fdopen(request_pipe[1], "wb"), os.fdopen(answer_pipe[0], "rb")
        return process

    def _request(self, command: str, **arguments: Any) -> Any:
        if self._requests.closed:
            raise RuntimeError(f"This environment was closed: {command} needs a new one.")
        try:
            wire.send(self._requests, [command, arguments])
            self._wait_for_answer()
            answer = wire.receive(self._answers)
        except (EOFError, BrokenPipeError) as error:
            code = self._wait_or_kill()
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise SimulatorProcessDied(f"{self._python} ended with {how}. {self._format_last_output()}") from error
        except KeyboardInterrupt:
            self._kill()  # its answer would be taken for that of the next request
            raise
        if "error" in answer:
            if command == "open":
                raise UserError(f"{self._python} cannot make the environment: {answer['error']}")
            raise RuntimeError(f"{self._python} raised in {command}:\n{answer['traceback']}")
        return answer["value"]

    def _wait_for_answer(self) -> None:
        """Raise EOFError if the other Python ends first: what it has started may keep the pipe open."""
        while not wait([self._answers.fileno()], _CHECK_INTERVAL_S):
            if self._process.poll() is not None:
                raise EOFError

    def _wait_or_kill(self) -> int:
        """The exit code of the other Python; it is killed if it does not end by itself."""
        try:
            return self._process.wait(_CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return self._kill()

    def _kill(self) -> int:
        self._process.kill()
        return self._process.wait()

    def _format_last_output(self) -> str:
        size = self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, size - _LAST_OUTPUT_BYTES))
        lines = self._output.read().decode(errors="replace").splitlines()
        return "It printed:\n" + "\n".join(lines[-_ERROR_LINES:]) if lines else "It printed nothing."

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        assert seed is not None
        return self._request("reset", seed=int(seed)), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        result = self._request("step", action=np.asarray(action))
        return result["observation"], result["reward"], result["over"], False, {"success": result["success"]}

    def render(self) -> Any:
        return self._request("render")

    def pictures(self) -> dict[str, np.ndarray]:
        return self._request("pictures")

    def close(self) -> None:
        if self._process.poll() is None:
            # The answer is not waited for: an environment may hang when it is closed, or still be busy.
            with contextlib.suppress(BrokenPipeError):
                wire.send(self._requests, ["close", {}])
            self._wait_or_kill()
        for stream in (self._requests, self._answers, self._output):
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def open_hosted_env(config: EnvConfig) -> ThirdPartyMujocoEnv | ThirdPartyImageEnv:
    """Raises UserError if the other Python cannot make it, or if its actions are not a numeric vector."""
    module, name = _LIBERO_TASKS, name_in_simulator(config.task)
    if config.simulator is not Simulator.LIBERO:
        module, name = split_module_and_id(name)
    hosted: list[HostedEnv] = []

    def make(settings: Mapping[str, Any]) -> HostedEnv:
        hosted.append(HostedEnv(config.python, module, name, settings, config.horizon))
        return hosted[-1]

    wrapped = wrap_gymnasium_env(config.task, make, config.make)
    env = hosted[-1]
    wrapped.metadata = dataclasses.replace(wrapped.metadata, versions=env.versions, horizon=env.spec.max_episode_steps)
    return wrapped


def space_from_description(description: Mapping[str, Any]) -> gymnasium.Space:
    """The space that `envs.hosted.serve.describe_space` describes."""
    kind = description["kind"]
    if kind == "Dict":
        return spaces.Dict({key: space_from_description(part) for key, part in description["parts"]})
    if kind == "Tuple":
        return spaces.Tuple([space_from_description(part) for part in description["parts"]])
    if kind == "Box":
        return spaces.Box(description["low"], description["high"], dtype=description["low"].dtype.type)
    if kind == "Discrete":
        return spaces.Discrete(description["n"], start=description["start"])
    if kind == "MultiBinary":
        return spaces.MultiBinary(description["n"])
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(description["nvec"], start=description["start"])
    return type(kind, (gymnasium.Space,), {})()
