"""Plain folders of npz and mp4 files, for people with their own recording scripts.

    dataset.json              fields of a DemoSpec; all but control_hz are optional
    000000.npz                state (n, s), actions (n, a); optional rewards (n,), success, seed, info (JSON text)
    000000.front.mp4          camera `front`: one frame per step (or 000000/front.mp4)

A uint8 array (n, h, w, 3) in the npz is a camera too. Episodes are ordered by the numbers in their file names.
"""

from __future__ import annotations

import dataclasses
import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pixio_robot.choice import Choice
from pixio_robot.data.demos.editing.rewrite import open_for_streaming
from pixio_robot.errors import UserError
from pixio_robot.files import read_json, write_json
from pixio_robot.interop.demo_formats import Conversion, import_episodes, write_atomically
from pixio_robot.interop.plain_folder_videos import find_video, read_video, write_video
from pixio_robot.interop.rounding import RoundingTracker
from pixio_robot.progress import track_progress
from pixio_robot.types import UNKNOWN, CameraSpec, DemoSpec, Episode

NAME = "folder"
SUMMARY = "a folder with an npz file per episode, and an mp4 file for each of its cameras"
DATASET = "dataset.json"
_UNKNOWN = ("robot", "simulator", "simulator_version", "controller", "render_quality")
_KNOWN = ("rewards", "success", "seed", "info")


class Images(Choice):
    """mp4: video files beside the npz. npz: arrays inside it."""

    MP4 = "mp4"
    NPZ = "npz"


@dataclass(kw_only=True)
class ImportConfig:
    """state, actions: names of arrays, separated by commas and concatenated in this order.
    hz: control steps per second, in place of control_hz in dataset.json.
    task, robot: replace those in dataset.json.
    without_success: success of episodes that do not store it.
    """

    state: list[str] = field(default_factory=lambda: ["state"])
    actions: list[str] = field(default_factory=lambda: ["actions"])
    hz: float = 0.0
    task: str = ""
    robot: str = ""
    without_success: bool = True


@dataclass(kw_only=True)
class ExportConfig:
    """images: mp4 (video files) or npz (arrays inside the npz).
    crf: 0 is lossless (RGB H.264; plays in FFmpeg and PyAV, but not in browsers); 18 is small and plays anywhere.
    """

    images: Images = Images.MP4
    crf: int = 0


def recognises(path: Path) -> bool:
    return path.is_dir() and any(path.glob("*.npz"))


def import_demos(source: Path, out: Path, config: ImportConfig) -> Conversion:
    if not source.is_dir():
        raise UserError(f"{source} is not a folder.")
    paths = sorted(source.glob("*.npz"), key=numeric_sort_key)
    if not paths:
        raise UserError(f"{source} contains no .npz file; expected one per episode.")
    return import_episodes(_Reader(source, paths, config), len(paths), out)


def numeric_sort_key(path: Path) -> list[Any]:
    """Sort key for numeric order: episode_9 before episode_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.stem)]


class _Reader:
    def __init__(self, source: Path, paths: list[Path], config: ImportConfig) -> None:
        self._paths, self._config = paths, config
        self._left_out: dict[str, None] = {}
        self._rounding = RoundingTracker()
        self._unsaid: dict[str, None] = {}
        self.spec = self._spec(source)

    def _spec(self, source: Path) -> DemoSpec:
        path = source / DATASET
        described = read_json(path) if path.is_file() else {}
        fields = {item.name for item in dataclasses.fields(DemoSpec)}
        if not isinstance(described, dict) or not set(described) <= fields:
            raise UserError(f"{path} must contain only fields of a DemoSpec: {', '.join(sorted(fields))}.")
        first = self._episode(0)
        names = {
            "state_names": tuple(f"state.{i}" for i in range(first.state.shape[1])),
            "action_names": tuple(f"action.{i}" for i in range(first.actions.shape[1])),
        }
        values = dict.fromkeys(_UNKNOWN, UNKNOWN) | {"task": source.name} | names | described
        for key, value in (("task", self._config.task), ("robot", self._config.robot)):
            values |= {key: value} if value else {}
        values["control_hz"] = self._config.hz or described.get("control_hz")
        if not values["control_hz"]:
            raise UserError(f"{path} does not specify control_hz; add it there, or set hz=STEPS_PER_SECOND.")
        cameras = described.get("cameras") or {}
        sizes = {name: {"height": frames.shape[1], "width": frames.shape[2]} for name, frames in first.images.items()}
        values["cameras"] = {name: dict(cameras.get(name, {})) | size for name, size in sizes.items()}
        for name in cameras:
            if name not in sizes:
                raise UserError(f"{path} names the camera {name!r}, but {self._paths[0]} has {sorted(sizes)}.")
        try:
            return DemoSpec.from_json(values)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            known = ", ".join(item.name for item in dataclasses.fields(CameraSpec))
            raise UserError(f"{path} is not a valid DemoSpec ({error}); a camera has {known}.") from error

    def episodes(self) -> Iterator[Episode]:
        return map(self._episode, range(len(self._paths)))

    def _episode(self, number: int) -> Episode:
        path = self._paths[number]
        arrays = _load(path)
        actions = self._joined(path, arrays, self._config.actions)
        count = len(actions)
        images = {name: arrays.pop(name) for name, array in list(arrays.items()) if array.ndim == 4}
        images |= {camera: read_video(film, count) for camera, film in find_video(path).items()}
        state = self._joined(path, arrays, self._config.state)
        known = {name: arrays.pop(name) for name in _KNOWN if name in arrays}
        self._unsaid |= dict.fromkeys(name for name in ("rewards", "success") if name not in known)
        self._left_out |= dict.fromkeys(arrays)
        try:
            return Episode(
                images=images,
                state=state,
                actions=actions,
                rewards=np.asarray(known.get("rewards", np.zeros(count)), np.float32).reshape(-1),
                success=bool(known["success"].any()) if "success" in known else self._config.without_success,
                seed=int(known.get("seed", number)),
                info=json.loads(str(known.get("info", "{}"))),
            )
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}: rewards, success, seed or info has the wrong format ({error}).") from error

    def _joined(self, path: Path, arrays: dict[str, np.ndarray], names: list[str]) -> np.ndarray:
        """The named arrays, concatenated: float32 (n, dimensions). They are removed from `arrays`."""
        parts = []
        for name in names:
            if name not in arrays:
                raise UserError(f"{path} has no array {name!r}; it has {', '.join(sorted(arrays)) or 'none'}.")
            array = arrays.pop(name)
            if array.ndim == 0 or array.dtype.kind not in "fiub":
                raise UserError(
                    f"{path}: {name} must be numeric with one row per step, not {array.dtype} {array.shape}."
                )
            parts.append(self._rounding.float32(name, array.reshape(len(array), -1)))
        if len(set(map(len, parts))) != 1:
            lengths = ", ".join(str(len(part)) for part in parts)
            raise UserError(f"{path}: {', '.join(names)} must have the same number of rows, but have {lengths}.")
        return np.concatenate(parts, 1)

    def notes(self) -> list[str]:
        notes = []
        if self._left_out:
            notes.append(f"left out: {', '.join(self._left_out)}")
        notes += self._rounding.notes()
        if "rewards" in self._unsaid:
            notes.append("some episodes have no rewards: they are set to 0")
        if "success" in self._unsaid:
            notes.append(f"some episodes do not store success: assuming success={self._config.without_success}")
        unknown = [name for name in _UNKNOWN if getattr(self.spec, name) == UNKNOWN]
        if unknown:
            notes.append(f"unknown: {', '.join(unknown)}")
        return notes


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(f"{path} cannot be read as npz: {error}") from error


def export_demos(store: Path, out: Path, config: ExportConfig) -> Conversion:
    demos = open_for_streaming(store)
    notes = []
    taken = sorted(set(demos.spec.cameras) & {"state", "actions", *_KNOWN})
    if taken:
        raise UserError(f"{store}: a camera named {taken[0]!r} would replace an array; rename it with `data rename`.")
    with write_atomically(out) as built:
        built.mkdir()
        write_json(built / DATASET, demos.spec.to_json())
        for number in track_progress(range(len(demos)), f"write {out}"):
            episode = demos.episode(number)
            values: dict[str, Any] = {name: getattr(episode, name) for name in ("state", "actions", *_KNOWN)}
            values["info"] = json.dumps(dict(episode.info))
            path = built / f"{number:06d}.npz"
            if config.images is Images.NPZ:
                arrays: dict[str, Any] = values | dict(episode.images)
                np.savez_compressed(path, **arrays)
                continue
            np.savez(path, **values)
            for camera, frames in episode.images.items():
                film = path.with_suffix(f".{camera}.mp4")
                write_video(film, frames, demos.spec.control_hz, config.crf)
                if number == 0 and config.crf:
                    error = np.abs(read_video(film, len(frames)).astype(np.int16) - frames)
                    notes.append(
                        f"{camera}: H.264, crf {config.crf}, changes pixels by {error.mean():.1f} of 255 on average, "
                        f"{error.max()} at most (in episode 0)"
                    )
    return Conversion(len(demos), int(demos.lengths.sum()), notes)
