"""ALOHA recordings, as written by the scripts of ACT and Mobile ALOHA: a folder with one HDF5 file per episode.

    episode_0.hdf5    attributes: sim; compress if images are JPEG
        observations/images/CAMERA    uint8 (t, h, w, 3); or (t, bytes), one zero-padded JPEG per row
        observations/qpos, qvel, effort    (t, 14): six joints and the gripper of the left arm, then of the right one
        action                             (t, 14): joint positions of the leader arms
        base_action                        (t, 2), Mobile ALOHA: linear and angular velocity
        compress_len                       (cameras, t): bytes of each JPEG (redundant: a JPEG marks its own end)

Zhao et al. 2023 (arXiv 2304.13705): record_sim_episodes.py of tonyzhaozh/act, record_episodes.py of tonyzhaozh/aloha.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pixio_robot.choice import Choice
from pixio_robot.data.actions.named_columns import override_names
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.interop.demo_formats import Conversion, import_episodes
from pixio_robot.interop.hdf5 import get_dataset, holds_images, list_hdf5_files, open_hdf5, read_dataset
from pixio_robot.interop.plain_folder import numeric_sort_key
from pixio_robot.interop.rounding import RoundingTracker
from pixio_robot.types import UNKNOWN, CameraSpec, DemoSpec, Episode

NAME = "aloha"
SUMMARY = "a folder of ALOHA's episode_0.hdf5, episode_1.hdf5, ..., as ACT and Mobile ALOHA record them"
PUBLISHED_HZ = 50.0
"""DT = 0.02 in constants.py of both."""
FILE, SIM = "file", "sim"
"""Keys of an episode's `info`."""
_JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
"""JOINT_NAMES in constants.py. The recorder normalises the gripper to 0 (closed) to 1 (open)."""
_GRIPPER = "gripper"
_UNITS = {
    "qpos": ("", " [rad]", " [0 closed, 1 open]"),
    "action": ("", " [rad]", " [0 closed, 1 open]"),
    "qvel": ("_vel", " [rad/s]", " [1/s]"),
    "effort": ("_effort", "", ""),
}
"""Array -> (suffix of its column names, unit of the joints, unit of the grippers)."""
_BASE = ("base_linear_vel [m/s]", "base_angular_vel [rad/s]")
_IMAGES = "observations/images"


class Jpeg(Choice):
    """Channel order of the JPEG images.

    act: red and blue are swapped in the files, because the recorder passes RGB images to OpenCV, which expects BGR.
    standard: as in any ordinary JPEG.
    """

    ACT = "act"
    STANDARD = "standard"


@dataclass(kw_only=True)
class ImportConfig:
    """state: arrays of `observations` to concatenate, in this order; of qpos, qvel and effort.
    actions: arrays of the file to concatenate, in this order; of action and base_action.
    cameras: default all.
    control_hz: not stored in the files; 50 is the rate of the published recorders.
    jpeg: channel order of JPEG images; act (red and blue are swapped in the file, and swapped back here) or standard.
    success: whether to count the episodes as successful; the files do not say.
    task: default the folder's name.
    robot, controller, state_names, action_names, source, licence: written to the DemoSpec.
    """

    state: list[str] = field(default_factory=lambda: ["qpos"])
    actions: list[str] = field(default_factory=lambda: ["action"])
    cameras: list[str] = field(default_factory=list)
    control_hz: float = PUBLISHED_HZ
    jpeg: Jpeg = Jpeg.ACT
    success: bool = True
    task: str = ""
    robot: str = "ALOHA"
    controller: str = "joint positions"
    state_names: list[str] = field(default_factory=list)
    action_names: list[str] = field(default_factory=list)
    source: str = ""
    licence: str = ""


def recognises(path: Path) -> bool:
    files = list_episode_files(path)
    if not files:
        return False
    try:
        with h5py.File(files[0], "r") as file:
            return "action" in file and "observations/qpos" in file
    except OSError:
        return False


def list_episode_files(path: Path) -> list[Path]:
    """The file itself, or the files of a folder in numeric order."""
    return sorted(list_hdf5_files(path), key=numeric_sort_key)


def import_demos(source: Path, out: Path, config: ImportConfig) -> Conversion:
    """Import the recordings. Raises UserError for invalid files or settings, and then writes nothing."""
    paths = list_episode_files(source)
    if not paths:
        raise UserError(f"{source} contains no .hdf5 file; expected one per episode.")
    if config.control_hz <= 0:
        raise UserError(f"control_hz={config.control_hz:g} must be positive.")
    return import_episodes(_Reader(source, paths, config), len(paths), out)


class _Reader:
    """Reads the episodes of one folder and keeps track of what is lost in conversion."""

    def __init__(self, source: Path, paths: Sequence[Path], config: ImportConfig) -> None:
        self._paths, self._config = paths, config
        self._left_out: dict[str, None] = {}
        self._rounding = RoundingTracker()
        self._jpeg = False
        self.spec = self._spec(source)

    def episodes(self) -> Iterator[Episode]:
        for number, path in enumerate(self._paths):
            with open_hdf5(path) as file:
                yield self._episode(number, path, file)

    def _episode(self, number: int, path: Path, file: h5py.File) -> Episode:
        actions = self._joined(path, file, "", self._config.actions)
        state = self._joined(path, file, "observations/", self._config.state)
        images = {name: self._images(path, file, name) for name in self.spec.cameras}
        for what, rows in {"observations": state, **images}.items():
            if len(rows) != len(actions):
                raise UserError(
                    f"{path} has {len(rows)} rows of {what} and {len(actions)} of {self._config.actions[0]}."
                )
        self._left_out |= dict.fromkeys(_left_out(file, self._config, self.spec))
        return Episode(
            images=images,
            state=state,
            actions=actions,
            rewards=np.zeros(len(actions), np.float32),
            success=self._config.success,
            seed=number,
            info={FILE: path.name} | ({SIM: bool(file.attrs[SIM])} if SIM in file.attrs else {}),
        )

    def _joined(self, path: Path, file: h5py.File, group: str, keys: Sequence[str]) -> np.ndarray:
        """The arrays concatenated along their columns: float32 (t, columns)."""
        parts = []
        for key in keys:
            values = read_dataset(file, f"{group}{key}", path)
            if values.ndim != 2 or values.dtype.kind not in "fiu":
                raise UserError(
                    f"{path}: {group}{key} is {values.dtype} {values.shape}, but must be a numeric array (t, width)."
                )
            parts.append(self._rounding.float32(key, values))
        if len({len(part) for part in parts}) != 1:
            lengths = ", ".join(str(len(part)) for part in parts)
            raise UserError(f"{path}: {', '.join(keys)} must have the same number of rows, but have {lengths}.")
        return np.concatenate(parts, axis=1)

    def _images(self, path: Path, file: h5py.File, camera: str) -> np.ndarray:
        """uint8 (t, h, w, 3), RGB."""
        images = read_dataset(file, f"{_IMAGES}/{camera}", path)
        if images.ndim == 4:
            return images
        self._jpeg = True
        frames = [self._decoded(path, camera, number, row) for number, row in enumerate(images)]
        if len({frame.shape for frame in frames}) != 1:
            raise UserError(f"{path}: {camera} must have at least one image, and all must have the same size.")
        return np.stack(frames)

    def _decoded(self, path: Path, camera: str, number: int, row: Any) -> np.ndarray:
        """Decode one JPEG, which marks its own end: `compress_len` is not needed (its camera order is not recorded)."""
        import cv2  # one of its builds needs libGL, which must not keep a machine from the other formats

        coded = row if isinstance(row, np.ndarray) else np.frombuffer(bytes(row), np.uint8)
        frame = cv2.imdecode(coded.astype(np.uint8, copy=False), cv2.IMREAD_COLOR) if len(coded) else None
        if frame is None:
            raise UserError(f"{path}: image {number} of {camera} is not a JPEG, or is damaged.")
        # OpenCV decodes to BGR. ACT encoded RGB as if it were BGR, so its images come back as RGB.
        return frame if self._config.jpeg is Jpeg.ACT else frame[..., ::-1]

    def _spec(self, source: Path) -> DemoSpec:
        config, path = self._config, self._paths[0]
        with open_hdf5(path) as file:
            stored = _cameras(file)
            for camera in config.cameras:
                if camera not in stored:
                    raise unknown_name(f"camera in {path}", camera, stored)
            sizes = {}
            for camera in config.cameras or stored:
                dataset = get_dataset(file, f"{_IMAGES}/{camera}", path)
                if dataset.ndim == 4:
                    sizes[camera] = dataset.shape[1:3]
                elif not len(dataset):
                    raise UserError(f"{path}: {camera} has no images.")
                else:
                    sizes[camera] = self._decoded(path, camera, 0, dataset[0]).shape[:2]
            states = self._names(path, file, "observations/", config.state, config.state_names, "state_names")
            actions = self._names(path, file, "", config.actions, config.action_names, "action_names")
        return DemoSpec(
            task=config.task or source.resolve().name.removesuffix(source.suffix if source.is_file() else ""),
            robot=config.robot,
            simulator=UNKNOWN,
            simulator_version=UNKNOWN,
            controller=config.controller,
            control_hz=config.control_hz,
            cameras={name: CameraSpec(height=height, width=width) for name, (height, width) in sizes.items()},
            state_names=states,
            action_names=actions,
            render_quality=UNKNOWN,
            source=config.source or f"ALOHA: {source.resolve().name}",
            licence=config.licence,
        )

    def _names(
        self, path: Path, file: h5py.File, group: str, keys: Sequence[str], names: Sequence[str], setting: str
    ) -> tuple[str, ...]:
        widths = {key: int(np.prod(get_dataset(file, f"{group}{key}", path).shape[1:])) for key in keys}
        defaults = [name for key, width in widths.items() for name in column_names(key, width)]
        return override_names(setting, names, keys, defaults)

    def notes(self) -> list[str]:
        config = self._config
        notes = []
        if config.control_hz == PUBLISHED_HZ:
            notes.append("the files do not store the control rate; assuming control_hz=50, as published")
        if self._jpeg:
            other = next(one for one in Jpeg if one is not config.jpeg)
            notes.append(
                f"JPEG images were read with jpeg={config.jpeg.value}; if red and blue look swapped, use "
                f"jpeg={other.value}"
            )
        if not self.spec.cameras:
            notes.append("the files have no images, so the store has no cameras")
        if self._left_out:
            notes.append(f"left out: {', '.join(self._left_out)} (select with state=, actions= and cameras=)")
        notes += self._rounding.notes()
        notes.append(
            "the files store neither rewards nor success: all rewards are 0, and all episodes have "
            f"success={str(config.success).lower()}"
        )
        return notes


def column_names(key: str, width: int) -> list[str]:
    """Column names of an array; numbered if its width is not that of ALOHA."""
    if key == "base_action" and width == len(_BASE):
        return list(_BASE)
    if key not in _UNITS or width != 2 * (len(_JOINTS) + 1):
        return [f"{key}.{number}" for number in range(width)]
    end, unit, gripper_unit = _UNITS[key]
    return [
        f"{arm}_{joint}{end}{gripper_unit if joint == _GRIPPER else unit}"
        for arm in ("left", "right")
        for joint in (*_JOINTS, _GRIPPER)
    ]


def _cameras(file: h5py.File) -> list[str]:
    """The colour cameras, in alphabetical order (HDF5's own). Depth images are not counted."""
    group = file.get(_IMAGES)
    items = dict(group.items()) if isinstance(group, h5py.Group) else {}
    return [name for name, item in items.items() if isinstance(item, h5py.Dataset) and _in_colour(item)]


def _in_colour(images: h5py.Dataset) -> bool:
    coded = (images.ndim == 2 and images.dtype == np.uint8) or (images.ndim == 1 and images.dtype.kind in "OS")
    return coded or holds_images(images)


def _left_out(file: h5py.File, config: ImportConfig, spec: DemoSpec) -> list[str]:
    used = {*(f"observations/{key}" for key in config.state), *config.actions, "compress_len"}
    used |= {f"{_IMAGES}/{camera}" for camera in spec.cameras}
    names: list[str] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and name not in used:
            names.append(name)

    file.visititems(visit)
    return names
