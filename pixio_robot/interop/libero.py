"""The demonstrations that LIBERO publishes: one HDF5 file per task, with images.

    TASK_demo.hdf5    attributes of data: problem_info, bddl_file_name, env_args, macros_image_convention
        data/demo_N/actions                 (t, 7): normalised change of the gripper's pose, then the gripper
        data/demo_N/rewards, dones          (t,): 1 at the last step
        data/demo_N/obs/agentview_rgb, eye_in_hand_rgb    uint8 (t, h, w, 3)
        data/demo_N/obs/ee_pos, ee_ori, gripper_states, joint_states    (t, 3), (t, 3), (t, 2), (t, 7)

Two things in these files are not what they seem (scripts/create_dataset.py of Lifelong-Robot-Learning/LIBERO; Liu et
al. 2023, arXiv 2306.03310): the images are upside down, and row t of `obs` is what was seen *after* action t.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from pixio_robot.choice import Choice
from pixio_robot.data.demos.editing.rewrite import TASK
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.interop.demo_formats import Conversion, import_episodes, join_task_names, multi_task_note
from pixio_robot.interop.hdf5 import get_dataset, holds_images, list_hdf5_files, read_dataset
from pixio_robot.interop.robomimic import env_metadata
from pixio_robot.interop.robomimic.hdf5_file import LIBERO_TASK, RobomimicFile
from pixio_robot.interop.robomimic.observations import get_observations
from pixio_robot.interop.rounding import RoundingTracker
from pixio_robot.types import UNKNOWN, CameraSpec, DemoSpec, Episode

NAME = "libero"
SUMMARY = "HDF5 files of LIBERO, one per task: a file, or a folder with a whole suite"
FILE, DEMO = "file", "demo"
"""Keys of an episode's `info`."""
UPSIDE_DOWN = "opengl"
"""robosuite's name for images whose first row is the lowest."""
IMAGE_CONVENTION = "macros_image_convention"
_RGB = "_rgb"
_KEPT = ("actions", "rewards", "obs")
_COLUMNS = {
    "ee_pos": [f"eef_pos.{axis} [m]" for axis in "xyz"],
    "ee_ori": [f"eef_axis_angle.{axis} [rad]" for axis in "xyz"],
    "gripper_states": [f"gripper.finger{finger} [m]" for finger in (1, 2)],
    "joint_states": [f"joint_pos.{joint} [rad]" for joint in range(7)],
}
"""Observation -> names of its columns, as in our own robosuite environments."""


class Pairing(Choice):
    """Which action belongs to an observation.

    next: the one taken when it was seen, which the files store one row later. The first action and the last observation
    of every episode have no partner and are left out. stored: the one in the same row, whose result it shows.
    """

    NEXT = "next"
    STORED = "stored"


@dataclass(kw_only=True)
class ImportConfig:
    """state: observations, concatenated in this order; of ee_pos, ee_ori, gripper_states and joint_states.
    cameras: default all, agentview and eye_in_hand.
    pairing: next pairs every observation with the action taken then, which is stored one row later; stored with the
    action in the same row, which led to it (what LIBERO's own baselines train on).
    upright: turn images the right way up, if the file says that they are upside down.
    mask: import only the demonstrations of this filter key.
    task: default LIBERO's name of each file's task, such as "pick up the milk and place it in the basket".
    source, licence: written to the DemoSpec.
    """

    state: list[str] = field(default_factory=lambda: ["ee_pos", "ee_ori", "gripper_states"])
    cameras: list[str] = field(default_factory=list)
    pairing: Pairing = Pairing.NEXT
    upright: bool = True
    mask: str = ""
    task: str = ""
    source: str = ""
    licence: str = ""


def recognises(path: Path) -> bool:
    return any(is_libero(file) for file in list_task_files(path)[:1])


def list_task_files(path: Path) -> list[Path]:
    """The file itself, or the HDF5 files below a folder in alphabetical order."""
    return sorted(list_hdf5_files(path, recursive=True))


def is_libero(path: Path) -> bool:
    """Whether this is an HDF5 file whose group `data` names a task of LIBERO; nothing else is checked."""
    try:
        with h5py.File(path, "r") as file:
            data = file.get("data")
            return isinstance(data, h5py.Group) and LIBERO_TASK in data.attrs
    except OSError:
        return False


def import_demos(source: Path, out: Path, config: ImportConfig) -> Conversion:
    """Import the files. Raises UserError for invalid files or settings, and then writes nothing."""
    paths = list_task_files(source)
    if not paths:
        raise UserError(f"{source} contains no .hdf5 file; expected one per task of LIBERO.")
    files = [_task_file(path, config) for path in paths]
    for file in files[1:]:
        if file.layout != files[0].layout:
            raise UserError(
                f"{file.path} differs from {files[0].path} in its cameras, state, actions, robot or control rate: "
                f"{file.layout} instead of {files[0].layout}. Import them one by one."
            )
    reader = _Reader(files, _spec(files, source, config), config)
    return import_episodes(reader, sum(len(file.demos) for file in files), out)


def task_name(bddl_file: str) -> str:
    """LIBERO's name of a task, from the name of the file that defines it: words, without the scene of LIBERO-90 and
    LIBERO-10 (`KITCHEN_SCENE10_close_the_top_drawer.bddl` is `close the top drawer`)."""
    words = bddl_file.replace("\\", "/").rpartition("/")[2].removesuffix(".bddl").split("_")
    scene = next((index for index, word in enumerate(words) if word.startswith("SCENE")), -1)
    return " ".join(words[scene + 1 :])


@dataclass(frozen=True)
class _Layout:
    """What all files of one import must have in common."""

    cameras: Mapping[str, tuple[int, int]]
    """Camera -> height and width of its images."""
    state_names: Sequence[str]
    action_names: Sequence[str]
    robot: str
    controller: str
    control_hz: float


@dataclass(frozen=True)
class _TaskFile:
    path: Path
    task: str
    demos: Sequence[str]
    layout: _Layout


def _task_file(path: Path, config: ImportConfig) -> _TaskFile:
    """Raises UserError if the file is not one of LIBERO, or does not match the settings."""
    with _open_file(path) as file:
        demos = file.chosen(config.mask)
        task = config.task or task_name(str(file.attributes[LIBERO_TASK]))
        return _TaskFile(path, task, demos, _layout(file, file.demo(demos[0]), config))


def _open_file(path: Path) -> RobomimicFile:
    file = RobomimicFile(path)
    if LIBERO_TASK not in file.attributes:
        file.close()
        raise UserError(f"{path} is not a file of LIBERO: the attributes of data lack {LIBERO_TASK}.")
    return file


def _layout(file: RobomimicFile, demo: h5py.Group, config: ImportConfig) -> _Layout:
    pictures = _pictures(demo)
    for camera in config.cameras:
        if camera not in pictures:
            raise unknown_name(f"camera in {file.path}", camera, pictures)
    states: list[str] = []
    for key in config.state:
        if key not in _COLUMNS:
            raise unknown_name("state", key, _COLUMNS)
        shape = get_dataset(demo, f"obs/{key}", file.path).shape
        if shape[1:] != (len(_COLUMNS[key]),):
            raise UserError(
                f"{file.path}: obs/{key} of {demo.name} has shape {shape}, but LIBERO's has "
                f"{len(_COLUMNS[key])} columns."
            )
        states += _COLUMNS[key]
    shape = get_dataset(demo, "actions", file.path).shape
    actions, known = env_metadata.action_names(file.env_args, "actions", shape[-1])
    hz = env_metadata.control_hz(file.env_args)
    if not known or hz is None:
        raise UserError(f"{file.path}: env_args does not describe the controller of actions with shape {shape}.")
    return _Layout(
        cameras={name: pictures[name] for name in config.cameras or pictures},
        state_names=states,
        action_names=actions,
        robot=" + ".join(env_metadata.robot_names(file.env_args)) or UNKNOWN,
        controller=env_metadata.controller_name(file.env_args, "actions"),
        control_hz=hz,
    )


def _pictures(demo: h5py.Group) -> dict[str, tuple[int, int]]:
    """Camera -> height and width of its colour images."""
    return {
        key.removesuffix(_RGB): (value.shape[1], value.shape[2])
        for key, value in get_observations(demo).items()
        if key.endswith(_RGB) and holds_images(value)
    }


def _spec(files: Sequence[_TaskFile], source: Path, config: ImportConfig) -> DemoSpec:
    layout = files[0].layout
    return DemoSpec(
        task=join_task_names([file.task for file in files], source.name),
        robot=layout.robot,
        simulator="libero",
        simulator_version=UNKNOWN,
        controller=layout.controller,
        control_hz=layout.control_hz,
        cameras={name: CameraSpec(height=height, width=width) for name, (height, width) in layout.cameras.items()},
        state_names=layout.state_names,
        action_names=layout.action_names,
        render_quality=UNKNOWN,
        source=config.source or f"LIBERO: {source.resolve().name}",
        licence=config.licence,
    )


class _Reader:
    """Reads the episodes of all files, and keeps track of what is lost in conversion."""

    def __init__(self, files: Sequence[_TaskFile], spec: DemoSpec, config: ImportConfig) -> None:
        self.spec = spec
        self._files, self._config = files, config
        self._tasks = list(dict.fromkeys(file.task for file in files))
        self._left_out: dict[str, None] = {}
        self._rounding = RoundingTracker()
        self._turned = False

    def episodes(self) -> Iterator[Episode]:
        seed = 0
        for task_file in self._files:
            with _open_file(task_file.path) as file:
                for demo in task_file.demos:
                    yield self._episode(file, demo, task_file, seed)
                    seed += 1

    def _episode(self, file: RobomimicFile, demo: str, task_file: _TaskFile, seed: int) -> Episode:
        group, length = file.demo(demo), file.length(demo)
        late = int(self._config.pairing is Pairing.NEXT)
        if length <= late:
            raise UserError(f"{file.path}: {demo} has {length} step; pairing=next needs two.")
        turned = self._config.upright and str(file.attributes.get(IMAGE_CONVENTION)) == UPSIDE_DOWN
        self._turned |= turned

        def observed(key: str) -> np.ndarray:
            rows = read_dataset(group, f"obs/{key}", file.path)
            if len(rows) != length:
                raise UserError(f"{file.path}: {demo} has {len(rows)} obs/{key}, but {length} actions.")
            return rows[: length - late]

        images = {camera: observed(f"{camera}{_RGB}") for camera in task_file.layout.cameras}
        state = [self._rounding.float32(key, observed(key)) for key in self._config.state]
        rewards = read_dataset(group, "rewards", file.path)[late:].astype(np.float32)
        actions = self._rounding.float32("actions", read_dataset(group, "actions", file.path)[late:])
        self._left_out |= dict.fromkeys(_left_out(group, task_file.layout.cameras, self._config.state))
        task = {TASK: task_file.task} if len(self._tasks) > 1 else {}
        return Episode(
            images={name: rows[:, ::-1] if turned else rows for name, rows in images.items()},
            state=np.concatenate(state, axis=1) if state else np.zeros((length - late, 0), np.float32),
            actions=actions,
            rewards=rewards,
            success=bool(rewards.max() > 0),
            seed=seed,
            info={FILE: file.path.name, DEMO: demo, **task},
        )

    def notes(self) -> list[str]:
        notes = self._rounding.notes()
        if self._turned:
            notes.append("the images are stored upside down; turned the right way up (upright=false keeps them)")
        if self._config.pairing is Pairing.NEXT:
            notes.append(
                "the files store every observation one row before the action taken then; paired with that action "
                "(pairing=next), so every episode is one step shorter"
            )
        if self._left_out:
            notes.append(f"left out: {', '.join(self._left_out)}")
        if len(self._tasks) > 1:
            notes.append(multi_task_note(len(self._tasks)))
        return notes


def _left_out(demo: h5py.Group, cameras: Iterable[str], state: Sequence[str]) -> list[str]:
    """What the group contains beyond that; `ee_states` is `ee_pos` and `ee_ori` side by side."""
    used = {*(f"{camera}{_RGB}" for camera in cameras), *state}
    used |= {"ee_states"} if {"ee_pos", "ee_ori"} <= used else set()
    return [
        *(str(key) for key in demo if key not in _KEPT),
        *(key for key in get_observations(demo) if key not in used),
    ]
