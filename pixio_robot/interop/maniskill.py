"""Trajectories of ManiSkill, as its wrapper RecordEpisode and its script replay_trajectory write them.

    NAME.json    env_info: env_id, env_kwargs; episodes: episode_id, episode_seed, control_mode, success
    NAME.h5      traj_N/obs                         (t + 1, ...): one array, or a tree of them
                 traj_N/actions                     (t, a)
                 traj_N/success, rewards            (t,); not in every file

Row i of `obs` is what was seen before action i; the last one comes after the last action. Images are uint8
(t + 1, h, w, 3). Tao et al. 2024 (arXiv 2410.00425); mani_skill/utils/wrappers/record.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pixio_robot.errors import UserError, unknown_name
from pixio_robot.files import read_json
from pixio_robot.interop.demo_formats import Conversion, import_episodes
from pixio_robot.interop.hdf5 import get_dataset, holds_images, open_hdf5, read_dataset
from pixio_robot.interop.rounding import RoundingTracker
from pixio_robot.types import UNKNOWN, CameraSpec, DemoSpec, Episode

NAME = "maniskill"
SUMMARY = "a file NAME.h5 of ManiSkill's trajectories with observations, beside its NAME.json"
DEFAULT_HZ = 20.0
"""`control_freq` of ManiSkill's SimConfig."""
TRAJECTORY = "trajectory"
"""Key of an episode's `info`: its number in the file."""
_OBSERVATIONS = "obs"
_OBSERVATION = "observation"
"""The name of observations that are a single array, as with `env.task=gymnasium:`."""


@dataclass(kw_only=True)
class ImportConfig:
    """state: vectors of the observations, concatenated in this order; default all.
    cameras: default all colour images.
    control_hz: not stored in the files; 20 is ManiSkill's default.
    task: default the environment, gymnasium:mani_skill.envs:ENV_ID.
    robot: default the file's robot_uids, if it names one.
    source, licence: written to the DemoSpec.
    """

    state: list[str] = field(default_factory=list)
    cameras: list[str] = field(default_factory=list)
    control_hz: float = DEFAULT_HZ
    task: str = ""
    robot: str = ""
    source: str = ""
    licence: str = ""


def recognises(path: Path) -> bool:
    if path.suffix != ".h5" or not path.is_file():
        return False
    try:
        with h5py.File(path, "r") as file:
            return any(str(name).startswith("traj_") for name in file) and path.with_suffix(".json").is_file()
    except OSError:
        return False


def import_demos(source: Path, out: Path, config: ImportConfig) -> Conversion:
    """Import one file. Raises UserError for invalid files or settings, and then writes nothing."""
    if not source.is_file():
        raise UserError(f"{source} is not a file; expected a .h5 file of ManiSkill.")
    if config.control_hz <= 0:
        raise UserError(f"control_hz={config.control_hz:g} must be positive.")
    reader = _Reader(source, _read_description(source.with_suffix(".json")), config)
    return import_episodes(reader, len(reader.trajectories), out)


@dataclass(frozen=True)
class _Trajectory:
    number: int
    control_mode: str
    seed: int
    success: bool | None


@dataclass(frozen=True)
class _Description:
    """What the JSON file says."""

    env: str
    robot: str
    trajectories: Sequence[_Trajectory]


def _read_description(path: Path) -> _Description:
    if not path.is_file():
        raise UserError(f"{path} does not exist: ManiSkill writes it beside the .h5 file, and both are needed.")
    content = read_json(path)
    try:
        env, episodes = content["env_info"], content["episodes"]
        robot = env["env_kwargs"].get("robot_uids")
        trajectories = [
            _Trajectory(
                int(one["episode_id"]), str(one["control_mode"]), int(one["episode_seed"]), _optional(one, "success")
            )
            for one in episodes
        ]
        description = _Description(str(env["env_id"]), robot if isinstance(robot, str) else UNKNOWN, trajectories)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        what = f"{type(error).__name__} {error}"
        raise UserError(f"{path} does not describe trajectories of ManiSkill: {what}.") from error
    if not trajectories:
        raise UserError(f"{path} lists no episodes.")
    modes = sorted({one.control_mode for one in trajectories})
    if len(modes) > 1:
        raise UserError(f"{path} has episodes of several control modes: {', '.join(modes)}; replay them with one.")
    return description


def _optional(episode: Mapping[str, Any], key: str) -> bool | None:
    return bool(episode[key]) if key in episode else None


class _Reader:
    """Reads the episodes of one file, and keeps track of what is lost in conversion."""

    def __init__(self, path: Path, description: _Description, config: ImportConfig) -> None:
        self._path, self._config = path, config
        self.trajectories = description.trajectories
        self._rounding = RoundingTracker()
        self._left_out: dict[str, None] = {}
        self._without_rewards = False
        with open_hdf5(path) as file:
            group = self._group(file, self.trajectories[0])
            parts = self._parts(group)
            vectors = [name for name, part in parts.items() if _is_vector(part)]
            images = [name for name, part in parts.items() if holds_images(part)]
            self._state = _chosen("state", config.state, vectors, path)
            cameras = _chosen("cameras", config.cameras, images, path)
            self.spec = DemoSpec(
                task=config.task or f"gymnasium:mani_skill.envs:{description.env}",
                robot=config.robot or description.robot,
                simulator="gymnasium",
                simulator_version=UNKNOWN,
                controller=self.trajectories[0].control_mode,
                control_hz=config.control_hz,
                cameras={name: CameraSpec(height=parts[name].shape[1], width=parts[name].shape[2]) for name in cameras},
                state_names=[
                    f"{name}.{index} [?]"
                    for name in self._state
                    for index in range(int(np.prod(parts[name].shape[1:], dtype=int)))
                ],
                action_names=[f"action.{index} [?]" for index in range(get_dataset(group, "actions", path).shape[-1])],
                render_quality=UNKNOWN,
                source=config.source or f"ManiSkill: {path.name}",
                licence=config.licence,
            )

    def _group(self, file: h5py.File, trajectory: _Trajectory) -> h5py.Group:
        group = file.get(f"traj_{trajectory.number}")
        if not isinstance(group, h5py.Group):
            raise UserError(f"{self._path} has no traj_{trajectory.number}, which its .json file lists.")
        return group

    def _parts(self, group: h5py.Group) -> dict[str, h5py.Dataset]:
        """The observations by the names that `env.task=gymnasium:` gives them. Raises UserError if there are none."""
        found: dict[str, h5py.Dataset] = {}

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                found[name.replace("/", "_")] = item

        observations = group.get(_OBSERVATIONS)
        if isinstance(observations, h5py.Dataset):
            found[_OBSERVATION] = observations
        elif isinstance(observations, h5py.Group):
            observations.visititems(visit)
        if not found:
            raise UserError(
                f"{self._path} has no observations, only actions and states of the simulation. Let ManiSkill add them: "
                f"python -m mani_skill.trajectory.replay_trajectory --traj-path {self._path.name} --save-traj -o rgb "
                "-c CONTROL_MODE, and import the file that it writes."
            )
        return found

    def episodes(self) -> Iterator[Episode]:
        with open_hdf5(self._path) as file:
            for trajectory in self.trajectories:
                yield self._episode(self._group(file, trajectory), trajectory)

    def _episode(self, group: h5py.Group, trajectory: _Trajectory) -> Episode:
        parts = self._parts(group)
        actions = self._rounding.float32("actions", read_dataset(group, "actions", self._path))

        def observed(name: str) -> np.ndarray:
            if name not in parts:
                raise UserError(f"{self._path}: {group.name} has no {name}, which the first trajectory has.")
            rows = read_dataset(group, parts[name].name or "", self._path)
            if len(rows) != len(actions) + 1:
                raise UserError(
                    f"{self._path}: {group.name} has {len(rows)} rows of {name} and {len(actions)} actions; "
                    "ManiSkill's have one row more than actions."
                )
            return rows[:-1]

        seen = {name: observed(name) for name in self._state}
        state = [
            self._rounding.float32(name, rows.reshape(len(rows), math.prod(rows.shape[1:])))
            for name, rows in seen.items()
        ]
        self._left_out |= dict.fromkeys(name for name in parts if name not in {*self._state, *self.spec.cameras})
        self._without_rewards |= "rewards" not in group
        return Episode(
            images={name: observed(name) for name in self.spec.cameras},
            state=np.concatenate(state, axis=1) if state else np.zeros((len(actions), 0), np.float32),
            actions=actions,
            rewards=self._rewards(group, len(actions)),
            success=self._success(group, trajectory),
            seed=trajectory.seed,
            info={TRAJECTORY: trajectory.number},
        )

    def _rewards(self, group: h5py.Group, length: int) -> np.ndarray:
        if "rewards" not in group:
            return np.zeros(length, np.float32)
        return self._rounding.float32("rewards", read_dataset(group, "rewards", self._path))

    def _success(self, group: h5py.Group, trajectory: _Trajectory) -> bool:
        """As the JSON file says, otherwise at the last step; false for tasks without success."""
        if trajectory.success is not None:
            return trajectory.success
        return "success" in group and bool(read_dataset(group, "success", self._path)[-1])

    def notes(self) -> list[str]:
        notes = self._rounding.notes()
        if self._config.control_hz == DEFAULT_HZ:
            notes.append("the files do not store the control rate; assuming control_hz=20, ManiSkill's default")
        if not self.spec.cameras:
            notes.append("the file has no colour images, so the store has no cameras")
        if self._without_rewards:
            notes.append("the file has no rewards (--record-rewards of replay_trajectory): all are 0")
        if self._left_out:
            notes.append(f"left out: {', '.join(self._left_out)}")
        return notes


def _is_vector(part: h5py.Dataset) -> bool:
    return part.ndim in (1, 2) and part.dtype.kind in "fiub"


def _chosen(setting: str, wanted: Sequence[str], there: Sequence[str], path: Path) -> list[str]:
    for name in wanted:
        if name not in there:
            raise unknown_name(f"{setting}= of {path}", name, there)
    return list(wanted or there)
