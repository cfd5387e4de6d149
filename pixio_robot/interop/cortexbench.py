"""Demonstrations of CortexBench's MuJoCo tasks, and of PVR and R3M before it: one pickle per task.

    TASK.pickle    list of paths, each a dict
        images          uint8 (t, h, w, 3)
        actions         (t, a)
        rewards         (t,)
        observations    (t, ...)
        env_infos       dict of arrays (t, ...): gripper_proprio (MetaWorld: position and opening of the gripper),
                        proprio (Adroit: joints of the hand), success (MetaWorld)

Majumdar et al. 2023 (arXiv 2303.18240): visual_imitation/train_loop.py of facebookresearch/eai-vc reads these keys, and
the sampler of aravindr93/mjrl writes them. Row t of all arrays belongs to the same step.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pixio_robot.data.actions.named_columns import override_names
from pixio_robot.errors import UserError
from pixio_robot.interop.array_pickle import read_array_pickle
from pixio_robot.interop.demo_formats import Conversion, import_episodes
from pixio_robot.interop.rounding import RoundingTracker
from pixio_robot.types import UNKNOWN, CameraSpec, DemoSpec, Episode

NAME = "cortexbench"
SUMMARY = "a pickle of CortexBench (VC-1), PVR or R3M: one task of MetaWorld, Adroit or DMControl"
_STATES = ("gripper_proprio", "proprio")
_METAWORLD = re.compile(r"(.+)-v2-goal-(observable|hidden)")
_METAWORLD_HZ = 80.0
_METAWORLD_STATE = (*(f"eef_pos.{axis} [m]" for axis in "xyz"), "gripper.opening [1]")
_METAWORLD_ACTIONS = (*(f"eef_delta_pos.{axis} [0.01 m]" for axis in "xyz"), "gripper [-1 opens, 1 closes]")
"""As in our own MetaWorld environments."""
_PATH = "path"
"""Key of an episode's `info`: its number in the file."""


@dataclass(kw_only=True)
class ImportConfig:
    """state: array of env_infos, or observations; default gripper_proprio or proprio, where there is one.
    camera: name of the only camera; default front for MetaWorld, as in our environments, otherwise camera.
    control_hz: not stored in the files; default 80 for MetaWorld, otherwise required.
    success: whether the episodes count as successful where the file does not say.
    task: default the file's name; assembly-v3 for assembly-v2-goal-observable.
    robot, controller, state_names, action_names, source, licence: written to the DemoSpec.
    """

    state: str = ""
    camera: str = ""
    control_hz: float = 0.0
    success: bool = True
    task: str = ""
    robot: str = ""
    controller: str = ""
    state_names: list[str] = field(default_factory=list)
    action_names: list[str] = field(default_factory=list)
    source: str = ""
    licence: str = ""


def recognises(path: Path) -> bool:
    if path.suffix not in (".pickle", ".pkl"):
        return False
    try:
        with path.open("rb") as file:
            return file.read(1) == b"\x80"  # every protocol since 2
    except OSError:
        return False


def import_demos(source: Path, out: Path, config: ImportConfig) -> Conversion:
    """Import the paths of one file, which is held in memory. Raises UserError for invalid files or settings, and then
    writes nothing."""
    if not source.is_file():
        raise UserError(f"{source} is not a file: import the pickle of one task at a time.")
    paths = read_array_pickle(source)
    if not isinstance(paths, list) or not paths or not all(isinstance(path, dict) for path in paths):
        raise UserError(f"{source} must hold a list of paths, each a dict of arrays.")
    return import_episodes(_Reader(source, paths, config), len(paths), out)


class _Reader:
    """Reads the paths of one file, each of which it then forgets."""

    def __init__(self, source: Path, paths: list[Any], config: ImportConfig) -> None:
        self._source, self._paths, self._config = source, paths, config
        self._metaworld = _METAWORLD.fullmatch(source.stem)
        self._state = config.state or self._default_state()
        self._states_success = "success" in self._infos(0)
        self._rounding = RoundingTracker()
        self.spec = self._spec()
        (self._camera,) = self.spec.cameras

    def episodes(self) -> Iterator[Episode]:
        for number in range(len(self._paths)):
            yield self._episode(number)
            self._paths[number] = None

    def _episode(self, number: int) -> Episode:
        actions = self._matrix(number, "actions")
        parts = {"images": self._images(number), self._state: self._matrix(number, self._state)}
        rewards = self._array(number, "rewards").reshape(-1)
        for name, rows in (parts | {"rewards": rewards}).items():
            if len(rows) != len(actions):
                raise UserError(f"{self._where(number)} has {len(rows)} rows of {name} and {len(actions)} of actions.")
        success = self._config.success
        if self._states_success:
            success = bool(self._array(number, "success").reshape(-1)[-1])
        return Episode(
            images={self._camera: parts["images"]},
            state=self._rounding.float32(self._state, parts[self._state]),
            actions=self._rounding.float32("actions", actions),
            rewards=self._rounding.float32("rewards", rewards),
            success=success,
            seed=number,
            info={_PATH: number},
        )

    def _where(self, number: int) -> str:
        return f"Path {number} of {self._source}"

    def _infos(self, number: int) -> Mapping[str, Any]:
        infos = self._paths[number].get("env_infos", {})
        return infos if isinstance(infos, dict) else {}

    def _array(self, number: int, key: str) -> np.ndarray:
        """A numeric array of the path or its env_infos."""
        value = self._infos(number).get(key, self._paths[number].get(key))
        if value is None:
            stored = [*self._paths[number], *(f"env_infos/{name}" for name in self._infos(number))]
            raise UserError(f"{self._where(number)} has no {key!r}, but {', '.join(map(str, stored))}.")
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf" or not value.size:
            what = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
            raise UserError(f"{self._where(number)}: {key!r} must be an array of numbers, not {what}.")
        return value

    def _matrix(self, number: int, key: str) -> np.ndarray:
        """An array (t, columns)."""
        value = self._array(number, key)
        if value.ndim != 2:
            raise UserError(f"{self._where(number)}: {key!r} must have the shape (t, columns), not {value.shape}.")
        return value

    def _images(self, number: int) -> np.ndarray:
        images = self._array(number, "images")
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise UserError(
                f"{self._where(number)}: 'images' must be uint8 (t, height, width, 3), not {images.dtype} "
                f"{images.shape}."
            )
        return images

    def _default_state(self) -> str:
        return next((name for name in _STATES if name in self._infos(0)), "observations")

    def _spec(self) -> DemoSpec:
        config, metaworld = self._config, self._metaworld
        control_hz = config.control_hz or (_METAWORLD_HZ if metaworld else 0.0)
        if control_hz <= 0:
            raise UserError(f"{self._source} does not store its control rate: pass control_hz=.")
        height, width = self._images(0).shape[1:3]
        state, actions = (self._matrix(0, key).shape[1] for key in (self._state, "actions"))
        default_states, default_actions = _numbered(self._state, state), _numbered("action", actions)
        if metaworld and actions == len(_METAWORLD_ACTIONS):
            default_actions = _METAWORLD_ACTIONS
        if metaworld and self._state == "gripper_proprio" and state == len(_METAWORLD_STATE):
            default_states = _METAWORLD_STATE
        return DemoSpec(
            task=config.task or (f"{metaworld[1]}-v3" if metaworld else self._source.stem),
            robot=config.robot or ("Sawyer" if metaworld else UNKNOWN),
            simulator=UNKNOWN,
            simulator_version=UNKNOWN,
            controller=config.controller or ("mocap position delta" if metaworld else UNKNOWN),
            control_hz=control_hz,
            cameras={config.camera or ("front" if metaworld else "camera"): CameraSpec(height=height, width=width)},
            state_names=override_names("state_names", config.state_names, [self._state], list(default_states)),
            action_names=override_names("action_names", config.action_names, ["actions"], list(default_actions)),
            render_quality=UNKNOWN,
            source=config.source or f"CortexBench: {self._source.name}",
            licence=config.licence,
        )

    def notes(self) -> list[str]:
        notes = []
        if self._metaworld and not self._config.task:
            notes.append(
                f"recorded in {self._source.stem}, but called {self.spec.task}: MetaWorld's later version, in which "
                "policies can be evaluated"
            )
        if self._state == "observations":
            notes.append(
                "the file has no proprioception: the state is `observations`, which tells of more than the robot; "
                "policy.conditioning.use_state=false ignores it"
            )
        if not self._states_success:
            notes.append(f"the file does not store success: all have success={str(self._config.success).lower()}")
        return notes + self._rounding.notes()


def _numbered(name: str, width: int) -> list[str]:
    return [f"{name}.{number}" for number in range(width)]
