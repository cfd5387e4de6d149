"""Import and export of LeRobotDataset v3, both through the lerobot package and without network access."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pixio_robot.choice import Choice
from pixio_robot.data.demo_edit import TASK, Recipe, open_source, write
from pixio_robot.data.demos import DemoStore
from pixio_robot.interop.demo_formats import Conversion, new_path, several_tasks_note, task_of_several
from pixio_robot.interop.lerobot_meaning import (
    ACTION,
    IMAGES,
    REWARD,
    SUCCESS,
    Columns,
    choose_columns,
    misfit,
    spec_of,
)
from pixio_robot.interop.lerobot_notes import FILE, Notes, read_notes
from pixio_robot.interop.lerobot_read import INFO, LeRobotFiles, Record
from pixio_robot.interop.rounding import Rounding
from pixio_robot.types import DemoSpec, Episode

NAME = "lerobot"
SUMMARY = "LeRobotDataset v3, with images or videos"


class Images(Choice):
    """IMAGE: lossless PNG inside the rows. VIDEO: mp4, small but lossy."""

    IMAGE = "image"
    VIDEO = "video"


@dataclass(kw_only=True)
class ImportConfig:
    """cameras: names, separated by commas; default all.
    state: keys, separated by commas and concatenated; default observation.state.
    action, reward, success: keys of the columns.
    without_success: success of every episode if the dataset has no success column.
    task, robot: replace the dataset's own names.
    tolerance_s: largest allowed difference between the timestamps of a row and of its video frame.
    """

    cameras: list[str] = field(default_factory=list)
    state: list[str] = field(default_factory=list)
    action: str = ACTION
    reward: str = REWARD
    success: str = SUCCESS
    without_success: bool = True
    task: str = ""
    robot: str = ""
    tolerance_s: float = 1e-4


@dataclass(kw_only=True)
class ExportConfig:
    """repo_id: name of the dataset; default local/ and the name of the folder.
    images: image (lossless PNG) or video.
    codec, crf, pix_fmt, gop: lerobot's settings of the video encoder.
    """

    repo_id: str = ""
    images: Images = Images.IMAGE
    codec: str = "libsvtav1"
    crf: int = 30
    pix_fmt: str = "yuv420p"
    gop: int = 2


def recognises(path: Path) -> bool:
    try:
        info = json.loads((path / INFO).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(info, dict) and {"codebase_version", "features"} <= set(info)


def import_demos(source: Path, out: Path, config: ImportConfig) -> Conversion:
    files = LeRobotFiles(source)
    columns = choose_columns(
        files.features,
        cameras=config.cameras,
        state=config.state,
        action=config.action,
        reward=config.reward,
        success=config.success,
    )
    notes = [f"left out: {', '.join(columns.left_out)}"] if columns.left_out else []
    ours = read_notes(source, columns.cameras)
    if ours is not None and (why := misfit(ours.spec, files.features, columns, files.meta.fps)):
        notes.append(f"{FILE} no longer matches the dataset and is ignored: {why}")
        ours = None
    reader = _Reader(files, columns, config, ours)
    write(out, {"": Recipe(spec=reader.spec, count=len(files), episodes=reader.episodes())})
    store = DemoStore.open(out, ram_bytes=0)
    return Conversion(len(store), int(store.lengths.sum()), notes + reader.notes())


class _Reader:
    """Converts the dataset's episodes to ours and keeps track of what is lost."""

    def __init__(self, files: LeRobotFiles, columns: Columns, config: ImportConfig, ours: Notes | None) -> None:
        self._files, self._columns, self._config, self._ours = files, columns, config, ours
        self._forgotten, self._mixed = 0, 0
        self._rounding = Rounding()
        self.spec = self._spec()

    def _spec(self) -> DemoSpec:
        if self._ours is not None:
            spec = self._ours.spec
            return dataclasses.replace(
                spec, task=self._config.task or spec.task, robot=self._config.robot or spec.robot
            )
        return spec_of(
            self._files.features,
            self._columns,
            fps=self._files.meta.fps,
            task=self._config.task or task_of_several(self._files.tasks, self._files.root.name),
            robot=self._config.robot or str(self._files.meta.robot_type or ""),
            source=f"LeRobotDataset {self._files.root.name}",
        )

    def episodes(self) -> Iterator[Episode]:
        for record in self._files.records(self._columns, self._config.tolerance_s):
            yield self._episode(record)

    def _episode(self, record: Record) -> Episode:
        columns, count = self._columns, len(record.tasks)

        def rows(key: str) -> np.ndarray:
            return self._rounding.float32(key, record.values[key]).reshape(count, -1)

        actions = rows(columns.action)
        reward, success = columns.reward, columns.success
        found: dict[str, Any] = {
            "success": self._config.without_success if success is None else bool(record.values[success].any()),
            "seed": record.number,
            "info": {TASK: record.tasks[0]} if len(self._files.tasks) > 1 else {},
        }
        self._mixed += len(set(record.tasks)) > 1
        if self._ours is not None:
            noted = self._ours.of(record.number, actions)
            self._forgotten += noted is None
            found = noted or found
        return Episode(
            images=record.images,
            state=np.concatenate([rows(key) for key in columns.state], 1),
            actions=actions,
            rewards=np.zeros(count, np.float32) if reward is None else rows(reward)[:, 0],
            **found,
        )

    def notes(self) -> list[str]:
        columns = self._columns
        found = self._rounding.notes()
        if columns.reward is None:
            found.append("no reward column: all rewards are 0")
        if columns.success is None and self._ours is None:
            found.append(f"no success column: assuming success={self._config.without_success} for every episode")
        if self._ours is None and (count := len(self._files.tasks)) > 1:
            found.append(several_tasks_note(count))
        if self._mixed:
            found.append(f"{self._mixed} episodes have several tasks; only the first is kept")
        if self._forgotten:
            found.append(f"{self._forgotten} episodes have changed since {FILE} was written, so it is ignored for them")
        if self._ours is None:
            found.append("simulator, controller and camera poses are unknown")
        return found


def export_demos(store: Path, out: Path, config: ExportConfig) -> Conversion:
    from pixio_robot.interop.lerobot_write import write_lerobot

    demos = open_source(store)
    video = config.images is Images.VIDEO and bool(demos.spec.cameras)
    encoder = {"vcodec": config.codec, "crf": config.crf, "pix_fmt": config.pix_fmt, "g": config.gop}
    notes = [f"the DemoSpec, seeds and infos are kept in {FILE}, which only pixio-robot reads"]
    with new_path(out) as built:
        write_lerobot(demos, built, repo_id=config.repo_id or f"local/{out.name}", encoder=encoder if video else None)
        if video:
            notes += _losses(demos, built, config)
    return Conversion(len(demos), int(demos.lengths.sum()), notes)


def _losses(store: DemoStore, root: Path, config: ExportConfig) -> list[str]:
    """Notes on how much the codec changed the first episode."""
    files = LeRobotFiles(root)
    columns = choose_columns(files.features, cameras=[], state=[], action=ACTION, reward=REWARD, success=SUCCESS)
    record = next(files.records(columns, 1e-4))
    found = []
    for camera, frames in record.images.items():
        error = np.abs(frames.astype(np.int16) - store.images(0, camera))
        found.append(
            f"{IMAGES}{camera}: {config.codec}, crf {config.crf}, {config.pix_fmt} changes pixels by "
            f"{error.mean():.1f} of 255 on average, {error.max()} at most (in episode 0)"
        )
    return found
