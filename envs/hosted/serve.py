"""Serves one environment with Gymnasium's interface to pixio-robot: `python serve.py REQUESTS ANSWERS DIES`: two pipes,
and 1 if the process is to be killed when the thread that started it ends, else 0.

Runs in the environment's own Python, with gymnasium or gym (also before 0.26) installed.
"""

from __future__ import annotations

import ctypes
import importlib
import inspect
import json
import os
import random
import signal
import sys
import traceback
from typing import Any

import numpy as np
import wire
from batch_of_one import play_as_single
from package_versions import version_of
from success import is_success

_DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of Linux, for which the parent is a thread."""


class Server:
    def __init__(self) -> None:
        self._env: Any = None

    def open(self, module: str, name: str, settings: dict[str, Any], horizon: int | None) -> dict[str, Any]:
        """Make the environment; returns its spaces, metadata, versions, and what its registration says."""
        if module:
            importlib.import_module(module)
        _seed(0)
        api = _find_api(name)
        self._env = play_as_single(_make(api, name, settings, horizon))
        spec, metadata = self._env.spec, dict(self._env.metadata or {})
        packages = metadata.get("packages") or [type(self._env.unwrapped).__module__.partition(".")[0]]
        return {
            "observation_space": describe_space(self._env.observation_space),
            "action_space": describe_space(self._env.action_space),
            "metadata": {key: value for key, value in metadata.items() if _is_json(value)},
            "render_mode": getattr(self._env, "render_mode", None),
            "horizon": horizon or getattr(spec, "max_episode_steps", None),
            "nondeterministic": bool(getattr(spec, "nondeterministic", False)),
            "versions": [version_of(package) for package in [*packages, api.__name__]],
        }

    def reset(self, seed: int) -> Any:
        _seed(seed)
        try:
            result = self._env.reset(seed=seed)
        except TypeError:  # gym before 0.22
            self._env.seed(seed)
            result = self._env.reset()
        with_info = isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)
        return result[0] if with_info else result

    def step(self, action: np.ndarray) -> dict[str, Any]:
        observation, reward, *ends, info = self._env.step(action)  # gym before 0.26 has one end instead of two
        return {
            "observation": observation,
            "reward": float(reward),
            "over": any(bool(end) for end in ends),
            "success": is_success(info),
        }

    def render(self) -> np.ndarray:
        return np.asarray(self._env.render())

    def pictures(self) -> dict[str, np.ndarray]:
        return self._env.unwrapped.pictures()

    def close(self) -> None:
        if self._env is not None:
            self._env.close()


def _make(api: Any, name: str, settings: dict[str, Any], horizon: int | None) -> Any:
    """Old versions of gym pass options that they do not know on to the environment."""
    known, options = inspect.signature(api.make).parameters, dict(settings)
    if "disable_env_checker" in known:
        options["disable_env_checker"] = True
    if horizon is None or "max_episode_steps" in known:
        return api.make(name, **options, **({} if horizon is None else {"max_episode_steps": horizon}))
    env = layer = api.make(name, **options)
    while type(layer).__name__ != "TimeLimit" and hasattr(layer, "env"):
        layer = layer.env
    if type(layer).__name__ == "TimeLimit":
        layer._max_episode_steps = horizon
        return env
    return importlib.import_module(api.__name__ + ".wrappers").TimeLimit(env, max_episode_steps=horizon)


def describe_space(space: Any) -> dict[str, Any]:
    """A space as data; kinds that cannot be a part of state or action by name only."""
    kind = type(space).__name__
    if kind == "Dict":
        return {"kind": kind, "parts": [[key, describe_space(part)] for key, part in space.spaces.items()]}
    if kind == "Tuple":
        return {"kind": kind, "parts": [describe_space(part) for part in space.spaces]}
    if kind == "Box":
        return {"kind": kind, "low": space.low, "high": space.high}
    if kind == "Discrete":
        return {"kind": kind, "n": int(space.n), "start": int(getattr(space, "start", 0))}
    if kind == "MultiBinary":
        return {"kind": kind, "n": np.atleast_1d(space.n).tolist()}
    if kind == "MultiDiscrete":
        return {"kind": kind, "nvec": space.nvec, "start": np.zeros_like(space.nvec) + getattr(space, "start", 0)}
    return {"kind": kind}


def _find_api(name: str) -> Any:
    """gymnasium or gym, whichever knows the environment. Raises the error of the first one that is installed."""
    first = None
    for api_name in ("gymnasium", "gym"):
        try:
            api = importlib.import_module(api_name)
            api.spec(name)
        except ImportError as error:
            first = first or error
        except Exception as error:  # each version has its own class
            first = error if first is None or isinstance(first, ImportError) else first
        else:
            return api
    assert first is not None
    raise first


def _seed(seed: int) -> None:
    """Environments often draw from the global generators, too."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def main() -> None:
    requests, answers = os.fdopen(int(sys.argv[1]), "rb"), os.fdopen(int(sys.argv[2]), "wb")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent handles it
    if sys.platform == "linux" and int(sys.argv[3]):
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    server = Server()
    while True:
        try:
            command, arguments = wire.receive(requests)
        except EOFError:
            break
        try:
            answer = {"value": getattr(server, command)(**arguments)}
            wire.send(answers, answer)
        except Exception as error:  # third-party code may fail in any way
            text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
            wire.send(answers, {"error": f"{type(error).__name__}: {error}", "traceback": text})
        if command == "close":
            break


if __name__ == "__main__":
    main()
