"""Import of a LeRobotDataset v3 into a demonstration store, one episode at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pixio_robot.data.demos.editing.rewrite import TASK
from pixio_robot.interop.demo_formats import Conversion, import_episodes, join_task_names, multi_task_note
from pixio_robot.interop.lerobot.extra_metadata import FILE, read_extra_metadata
from pixio_robot.interop.lerobot.features import Columns, choose_columns, find_mismatch, spec_from_features
from pixio_robot.interop.lerobot.reader import LeRobotFiles, Record
from pixio_robot.interop.lerobot.settings import ImportConfig
from pixio_robot.interop.rounding import RoundingTracker
from pixio_robot.types import DemoSpec, Episode


def import_demos(source: Path, out: Path, config: ImportConfig) -> Conversion:
    files = LeRobotFiles(source)
    columns = choose_columns(files.features, config)
    return import_episodes(_Reader(files, columns, config), len(files), out)


class _Reader:
    """Converts the dataset's episodes to ours and keeps track of what is lost."""

    def __init__(self, files: LeRobotFiles, columns: Columns, config: ImportConfig) -> None:
        self._files, self._columns, self._config = files, columns, config
        self._ours = read_extra_metadata(files.root, columns.cameras)
        self._mismatch = self._ours and find_mismatch(self._ours.spec, files.features, columns, files.meta.fps)
        if self._mismatch:
            self._ours = None
        self._forgotten, self._mixed, self._reordered = 0, 0, 0
        self._rounding = RoundingTracker()
        self.spec = self._spec()

    def _spec(self) -> DemoSpec:
        config = self._config
        if self._ours is not None:
            spec = self._ours.spec
            spec = dataclasses.replace(spec, task=config.task or spec.task, robot=config.robot or spec.robot)
        else:
            spec = spec_from_features(
                self._files.features,
                self._columns,
                fps=self._files.meta.fps,
                task=config.task or join_task_names(self._files.tasks, self._files.root.name),
                robot=config.robot or str(self._files.meta.robot_type or ""),
                source=f"LeRobotDataset {self._files.root.name}",
            )
        return dataclasses.replace(spec, control_hz=config.control_hz or spec.control_hz)

    def episodes(self) -> Iterator[Episode]:
        return map(self._episode, self._files.records(self._columns, self._config.tolerance_s))

    def _episode(self, record: Record) -> Episode:
        columns, count = self._columns, len(record.tasks)

        def rows(key: str) -> np.ndarray:
            return self._rounding.float32(key, record.values[key]).reshape(count, -1)

        actions = rows(columns.action)
        reward, success = columns.reward, columns.success
        fields: dict[str, Any] = {
            "success": self._config.without_success if success is None else bool(record.values[success].any()),
            "seed": record.number,
            "info": {TASK: record.tasks[0]} if len(self._files.tasks) > 1 else {},
        }
        self._reordered += record.reordered
        self._mixed += len(set(record.tasks)) > 1
        if self._ours is not None:
            stored = self._ours.of(record.number, actions)
            self._forgotten += stored is None
            fields = stored or fields
        return Episode(
            images=record.images,
            state=np.concatenate([rows(key) for key in columns.state], 1),
            actions=actions,
            rewards=np.zeros(count, np.float32) if reward is None else rows(reward)[:, 0],
            **fields,
        )

    def notes(self) -> list[str]:
        columns = self._columns
        notes = [f"left out: {', '.join(columns.left_out)}"] if columns.left_out else []
        if self._mismatch:
            notes.append(f"{FILE} no longer matches the dataset and is ignored: {self._mismatch}")
        notes += self._rounding.notes()
        if columns.reward is None:
            notes.append("no reward column: all rewards are 0")
        if columns.success is None and self._ours is None:
            notes.append(f"no success column: assuming success={self._config.without_success} for every episode")
        if self._ours is None and (count := len(self._files.tasks)) > 1:
            notes.append(multi_task_note(count))
        if self._mixed:
            notes.append(f"{self._mixed} episodes have several tasks; only the first is kept")
        if self._reordered:
            notes.append(f"the rows of {self._reordered} episodes were not in the order of frame_index, and are now")
        if self._forgotten:
            notes.append(f"{self._forgotten} episodes have changed since {FILE} was written, so it is ignored for them")
        if self._ours is None:
            notes.append("simulator, controller and camera poses are unknown")
        return notes
