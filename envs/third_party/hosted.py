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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from envs.hosted import wire
from envs.third_party.base import ForeignMujoco, ForeignPlain, SimulatorDied
from envs.third_party.gymnasium import open_made
from pixio_robot.errors import UserError

_HERE = Path(__file__).parents[1] / "hosted"
_CLOSE_S = 10.0
"""Time for the other Python to end by itself."""
_LAST_LINES = 12


@dataclasses.dataclass(frozen=True)
class _Registration:
    """What `GymnasiumPlain` reads of `gymnasium.Env.spec`."""

    max_episode_steps: int | None
    nondeterministic: bool


class HostedEnv(gymnasium.Env):
    """The environment `name` of another Python; importing `module` there registers it.

    Raises UserError if that Python does not start or cannot make it, and SimulatorDied if it ends later.
    """

    def __init__(
        self, python: str, module: str, name: str, settings: Mapping[str, Any], horizon: int | None = None
    ) -> None:
        self._python = python
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        self._process = self._start()
        try:
            facts = self._ask("open", module=module, name=name, settings=dict(settings), horizon=horizon)
            self.versions: tuple[str, ...] = tuple(facts["versions"])
            self.observation_space = space_of(facts["observation_space"])
            self.action_space = space_of(facts["action_space"])
        except BaseException as error:
            self.close()
            if isinstance(error, SimulatorDied):
                raise UserError(f"env.python cannot serve an environment: {error}") from error
            raise
        self.metadata = facts["metadata"]
        self.render_mode = facts["render_mode"]
        self.spec: Any = _Registration(facts["horizon"], facts["nondeterministic"])

    def _start(self) -> subprocess.Popen[bytes]:
        ours, theirs = os.pipe(), os.pipe()
        command = [self._python, str(_HERE / "serve.py"), str(ours[0]), str(theirs[1])]
        try:
            # Its prints would end up between the lines of our progress; the last ones are part of our errors.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
                pass_fds=(ours[0], theirs[1]),
            )
        except OSError as error:
            for end in (*ours, *theirs):
                os.close(end)
            raise UserError(f"env.python={self._python} cannot be run: {error.strerror}.") from error
        os.close(ours[0])
        os.close(theirs[1])
        self._requests, self._answers = os.fdopen(ours[1], "wb"), os.fdopen(theirs[0], "rb")
        return process

    def _ask(self, command: str, **arguments: Any) -> Any:
        try:
            wire.send(self._requests, [command, arguments])
            answer = wire.receive(self._answers)
        except (EOFError, BrokenPipeError) as error:
            code = self._process.wait(_CLOSE_S)
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise SimulatorDied(f"{self._python} ended with {how}. {self._last_lines()}") from error
        if "error" in answer:
            if command == "open":
                raise UserError(f"{self._python} cannot make the environment: {answer['error']}")
            raise RuntimeError(f"{self._python} raised in {command}:\n{answer['traceback']}")
        return answer["value"]

    def _last_lines(self) -> str:
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").splitlines()
        return "It printed:\n" + "\n".join(lines[-_LAST_LINES:]) if lines else "It printed nothing."

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        assert seed is not None
        return self._ask("reset", seed=int(seed)), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        found = self._ask("step", action=np.asarray(action))
        return found["observation"], found["reward"], found["over"], False, found["info"]

    def render(self) -> Any:
        return self._ask("render")

    def pictures(self) -> dict[str, np.ndarray]:
        return self._ask("pictures")

    def close(self) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(SimulatorDied, RuntimeError, subprocess.TimeoutExpired):
                self._ask("close")
                self._process.wait(_CLOSE_S)
            self._process.kill()
            self._process.wait()
        for stream in (self._requests, self._answers, self._said):
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def open_hosted(
    task: str, python: str, module: str, name: str, settings: Mapping[str, Any], horizon: int | None
) -> ForeignMujoco | ForeignPlain:
    """Raises UserError if the other Python cannot make it, or if its actions are not a numeric vector."""
    hosted: list[HostedEnv] = []

    def make(settings: Mapping[str, Any]) -> HostedEnv:
        hosted.append(HostedEnv(python, module, name, settings, horizon))
        return hosted[-1]

    foreign = open_made(task, make, settings)
    env = hosted[-1]
    foreign.facts = dataclasses.replace(foreign.facts, versions=env.versions, horizon=env.spec.max_episode_steps)
    return foreign


def space_of(found: Mapping[str, Any]) -> gymnasium.Space:
    """The space that `envs.hosted.serve.described` describes."""
    kind = found["kind"]
    if kind == "Dict":
        return spaces.Dict({key: space_of(part) for key, part in found["parts"]})
    if kind == "Tuple":
        return spaces.Tuple([space_of(part) for part in found["parts"]])
    if kind == "Box":
        return spaces.Box(found["low"], found["high"], dtype=found["low"].dtype.type)
    if kind == "Discrete":
        return spaces.Discrete(found["n"], start=found["start"])
    if kind == "MultiBinary":
        return spaces.MultiBinary(found["n"])
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(found["nvec"])
    return type(kind, (gymnasium.Space,), {})()
