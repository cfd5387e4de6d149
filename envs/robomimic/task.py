"""`task=robomimic:STORE`: the robosuite environment that imported robomimic demonstrations were recorded in.

STORE is the output of `pixio-robot data import FILE.hdf5 format=robomimic`. Its DemoSpec defines the observations of a
policy trained on it, with their names and sizes, and every episode contains the file's env_args.
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

ROBOMIMIC_PREFIX = "robomimic:"
ENV_ARGS_KEY = "env_args"
"""Key in the info of imported episodes."""

_LONG_HORIZONS = {"ToolHang": 700, "TwoArmTransport": 700}
_HORIZON = 400
"""Control steps in robomimic's own evaluations (Mandlekar et al. 2021), if the file specifies no limit."""

_QUALITIES = {UNKNOWN: "full"}
"""Render quality for images rendered elsewhere: robosuite's images match FULL."""

REACH_M = 2.0
"""Upper bound of an arm's reach from the origin."""


@dataclasses.dataclass(frozen=True)
class RecordedEnv:
    """env_args: those of the robomimic file. image_size: side of the square images [px], None without cameras."""

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
        """A hash of the env_args, independent of the store's location."""
        return hashlib.sha256(json.dumps(self.env_args, sort_keys=True).encode()).hexdigest()[:8]


def with_absolute_path(task: str) -> str:
    """The task's name with the absolute path of the store, for processes with another working directory."""
    return ROBOMIMIC_PREFIX + str(Path(task.removeprefix(ROBOMIMIC_PREFIX)).resolve())


@functools.cache
def load_recorded_env(task: str) -> RecordedEnv:
    """The environment described by the first episode. Raises UserError if there is no store, if its environment is not
    robosuite's, or if its images cannot be rendered here."""
    from pixio_robot.data.demos.episode_header import read_header
    from pixio_robot.data.demos.root_metadata import read_root_metadata
    from pixio_robot.data.demos.store import EPISODES

    path = Path(task.removeprefix(ROBOMIMIC_PREFIX))
    if path.is_file():
        raise UserError(
            f"task={task} must name a store: import the file first with `pixio-robot data import {path} "
            "format=robomimic out=STORE`, and train on the store."
        )
    spec = read_root_metadata(path).spec
    first = read_header(path / EPISODES / f"{0:06d}")
    env_args = None if first is None else first.info.get(ENV_ARGS_KEY)
    if not isinstance(env_args, Mapping):
        raise UserError(
            f"task={task} needs demonstrations imported from a robomimic file, whose episodes describe the environment "
            f"they were recorded in ({ENV_ARGS_KEY}); those of {path} do not."
        )
    arguments = env_args.get("env_kwargs")
    name = env_args.get("env_name")
    if env_args.get("type") != 1 or not isinstance(arguments, Mapping) or not isinstance(name, str):
        raise UserError(
            f"task={task} was not recorded in robosuite: its {ENV_ARGS_KEY} have type {env_args.get('type')}, env_name "
            f"{name}."
        )
    sizes = {(camera.height, camera.width) for camera in spec.cameras.values()}
    if len(sizes) > 1 or any(height != width for height, width in sizes):
        text = ", ".join(f"{height}x{width}" for height, width in sorted(sizes))
        raise UserError(f"task={task} has images of {text} pixels; only square images of one size are supported.")
    horizon = arguments.get("horizon") or _LONG_HORIZONS.get(name, _HORIZON)
    return RecordedEnv(spec, env_args, next(iter(sizes))[0] if sizes else None, int(horizon))


@functools.cache
def check_same_env_args(task: str) -> None:
    """Raise UserError unless all episodes of the store describe the same environment.

    Reads all of them: once, when a configuration is created, and not in every worker that receives it.
    """
    from pixio_robot.data.demos.store import DemoStore

    store = DemoStore.open(task.removeprefix(ROBOMIMIC_PREFIX))
    for number in range(1, len(store)):
        if store.info(number).get(ENV_ARGS_KEY) != store.info(0).get(ENV_ARGS_KEY):
            raise UserError(
                f"task={task}: episodes 0 and {number} were recorded in different environments ({ENV_ARGS_KEY}): "
                "use a store with only one of them."
            )


_UNIT_LIMITS = {"[m]": REACH_M, "[rad]": np.pi}
"""Unit of an absolute target -> its largest magnitude."""


def action_limits(action_names: Sequence[str]) -> np.ndarray:
    """The largest action to choose, float64 (a,): the arm's reach for positions, pi for angles, else robosuite's 1."""
    return np.array([_UNIT_LIMITS.get(_unit_suffix(name), 1.0) for name in action_names])


def clip_limits(action_names: Sequence[str]) -> np.ndarray:
    """The magnitude at which an action is clipped before robosuite receives it, float64 (a,): the arm's reach and a
    full turn for absolute poses of a gripper, else infinite. robosuite clips deltas itself, and joints may turn on.

    A full turn, because rotation vectors that do not jump may have angles beyond pi: clipped there, they would be other
    rotations."""
    limits = _UNIT_LIMITS | {"[rad]": 2 * np.pi}
    poses = ["eef_" in name for name in action_names]
    return np.where(poses, [limits.get(_unit_suffix(name), np.inf) for name in action_names], np.inf)


def _unit_suffix(name: str) -> str:
    """The last part in brackets, with them."""
    return name[name.rfind("[") :]
