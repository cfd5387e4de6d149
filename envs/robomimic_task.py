"""`task=robomimic:STORE`: the robosuite environment that imported robomimic demonstrations were recorded in.

STORE is what `pixio-robot data import FILE.hdf5 format=robomimic` wrote. Its DemoSpec says which observations a policy
trained on it reads, by which names and at which sizes, and every episode carries the file's env_args.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pixio_robot.errors import UserError
from pixio_robot.types import UNKNOWN, DemoSpec

PREFIX = "robomimic:"
ENV_ARGS = "env_args"
"""Where an imported episode's info keeps them."""

_LONG = {"ToolHang": 700, "TwoArmTransport": 700}
_HORIZON = 400
"""Control steps robomimic's own evaluations run (Mandlekar et al. 2021), where the file names no limit."""

_QUALITIES = {UNKNOWN: "full"}
"""How to draw what somebody else has drawn: robosuite's pictures are what FULL draws here."""

REACH_M = 2.0
"""An arm on its table reaches no further from the origin."""


@dataclasses.dataclass(frozen=True)
class Recorded:
    """env_args: of the robomimic file. image_size: side of the square images [px], None without cameras."""

    spec: DemoSpec
    env_args: Mapping[str, Any]
    image_size: int | None
    horizon: int

    @property
    def render_quality(self) -> str:
        """`full` or `fast`."""
        return _QUALITIES.get(self.spec.render_quality, self.spec.render_quality)

    @property
    def fingerprint(self) -> str:
        """The same for the same env_args, wherever the store lies."""
        return hashlib.sha256(json.dumps(self.env_args, sort_keys=True).encode()).hexdigest()[:8]


def absolute(task: str) -> str:
    """The task's name with the store's whole path, for processes that work in another directory."""
    return PREFIX + str(Path(task.removeprefix(PREFIX)).resolve())


@functools.cache
def recorded(task: str) -> Recorded:
    """As the first episode says. Raises UserError where there is no store, and where that is no environment of
    robosuite or has pictures that cannot be drawn here."""
    from pixio_robot.data.demo_header import read_header
    from pixio_robot.data.demo_recognition import read_root
    from pixio_robot.data.demos import EPISODES

    path = Path(task.removeprefix(PREFIX))
    if path.is_file():
        raise UserError(
            f"task={task} must name a store: import the file first, `pixio-robot data import {path} format=robomimic "
            "out=STORE`, and train on it."
        )
    spec = read_root(path).spec
    first = read_header(path / EPISODES / f"{0:06d}")
    found = None if first is None else first.info.get(ENV_ARGS)
    if not isinstance(found, Mapping):
        raise UserError(
            f"task={task} needs demonstrations imported from a robomimic file, whose episodes say which environment "
            f"they were recorded in ({ENV_ARGS}); those of {path} do not."
        )
    arguments = found.get("env_kwargs")
    name = found.get("env_name")
    if found.get("type") != 1 or not isinstance(arguments, Mapping) or not isinstance(name, str):
        raise UserError(
            f"task={task} was not recorded in robosuite: its {ENV_ARGS} have type {found.get('type')}, env_name {name}."
        )
    sizes = {(camera.height, camera.width) for camera in spec.cameras.values()}
    if len(sizes) > 1 or any(height != width for height, width in sizes):
        text = ", ".join(f"{height}x{width}" for height, width in sorted(sizes))
        raise UserError(f"task={task} has pictures of {text} pixels; only square ones of one size can be drawn here.")
    horizon = arguments.get("horizon") or _LONG.get(name, _HORIZON)
    return Recorded(spec, found, next(iter(sizes))[0] if sizes else None, int(horizon))


@functools.cache
def check_alike(task: str) -> None:
    """Raises UserError where the store's episodes do not all say the same of their environment.

    It reads them all: once, where a configuration is made, and not in every worker that is sent it.
    """
    from pixio_robot.data.demos import DemoStore

    store = DemoStore.open(task.removeprefix(PREFIX))
    for number in range(1, len(store)):
        if store.info(number).get(ENV_ARGS) != store.info(0).get(ENV_ARGS):
            raise UserError(
                f"task={task}: episodes 0 and {number} were recorded in different environments ({ENV_ARGS}): "
                "name a store of one of them."
            )


def bounds(action_names: Sequence[str]) -> np.ndarray:
    """The largest action, float64 (a,): a place in the world within reach, an angle up to pi, else robosuite's 1."""
    units = {"[m]": REACH_M, "[rad]": np.pi}
    return np.array([units.get(name[name.rfind("[") :], 1.0) for name in action_names])
