"""Import of a robomimic file into a demonstration store, one demonstration at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pixio_robot.data.demos.editing.rewrite import TASK, NewStore, write_stores
from pixio_robot.errors import UserError
from pixio_robot.interop.demo_formats import Conversion
from pixio_robot.interop.hdf5 import read_dataset
from pixio_robot.interop.robomimic.absolute_actions import check_delta_range
from pixio_robot.interop.robomimic.hdf5_file import RobomimicFile, demo_number
from pixio_robot.interop.robomimic.import_plan import LANGUAGE, ImportPlan, make_import_plan
from pixio_robot.interop.robomimic.observations import get_model_file
from pixio_robot.interop.robomimic.renderer import OpenRenderer, StateRenderer
from pixio_robot.interop.robomimic.settings import DEMO, ENV_ARGS, INFO, MASK, ImportConfig
from pixio_robot.interop.rounding import RoundingTracker
from pixio_robot.types import Episode

SUCCESS_REWARD = 1.0
"""robosuite's tasks return this reward (after scaling) exactly while they are solved; shaped rewards stay below it."""
_ROUNDING = 1e-6


def import_file(source: Path, out: Path, config: ImportConfig, open_scene: OpenRenderer) -> Conversion:
    """Import the file. Raises UserError for an invalid file or settings, and then writes nothing."""
    with RobomimicFile(source) as file:
        scene = _LazyRenderer(open_scene, config)
        try:
            demos = file.chosen(config.mask)
            plan = make_import_plan(file, demos, config, scene)
            reader = _Reader(file, plan, config, scene)
            lengths = [file.length(demo) for demo in demos]
            write_stores(out, {"": NewStore(spec=plan.spec, count=len(demos), episodes=map(reader.episode, demos))})
        finally:
            scene.close()
    return Conversion(episodes=len(demos), frames=sum(lengths), notes=[*plan.notes, *scene.notes(), *reader.notes()])


class _LazyRenderer:
    """Starts the simulator only when something has to be computed, not for a file that contains everything."""

    def __init__(self, open_scene: OpenRenderer, config: ImportConfig) -> None:
        self._open, self._config = open_scene, config
        self._scene: StateRenderer | None = None

    def _get(self) -> StateRenderer:
        if self._scene is None:
            self._scene = self._open(self._config.image_size, self._config.render_quality)
        return self._scene

    def cameras(self, model_file: str, names: Any) -> Any:
        return self._get().cameras(model_file, names)

    def observe(self, model_file: str, states: np.ndarray, keys: Any, cameras: Any) -> Mapping[str, np.ndarray]:
        return self._get().observe(model_file, states, keys, cameras)

    def notes(self) -> list[str]:
        return [] if self._scene is None else self._scene.notes()

    def close(self) -> None:
        if self._scene is not None:
            self._scene.close()


class _Reader:
    """Reads the episodes of one file according to the plan, and keeps track of what is lost in conversion."""

    def __init__(self, file: RobomimicFile, plan: ImportPlan, config: ImportConfig, scene: StateRenderer) -> None:
        self._file, self._plan, self._config, self._scene = file, plan, config, scene
        self._rounding = RoundingTracker()
        self._dropped: set[str] = set()
        self._without_rewards = False

    def notes(self) -> list[str]:
        notes = self._rounding.notes()
        if self._dropped:
            notes.append(f"not kept in the store: {', '.join(sorted(self._dropped))}")
        if self._without_rewards:
            notes.append("the file has no rewards: all of them are 0")
        return notes

    def episode(self, demo: str) -> Episode:
        group, plan = self._file.demo(demo), self._plan
        length = self._file.length(demo)
        computed: Mapping[str, np.ndarray] = {}
        if plan.rendered or plan.state.computed:
            states = read_dataset(group, "states", self._file.path)
            computed = self._scene.observe(get_model_file(self._file, demo), states, plan.state.computed, plan.rendered)
        images = {name: self._observation(group, key, length) for name, key in plan.stored.items()}
        images |= {name: computed[f"{name}_image"] for name in plan.rendered}
        state = np.empty((length, plan.spec.state_dim), np.float32)
        for key, columns in plan.state.columns.items():
            column = computed[key] if key in plan.state.computed else self._observation(group, key, length)
            state[:, columns] = self._rounding.float32(key, column.reshape(length, -1))
        recorded = read_dataset(group, self._config.actions, self._file.path)
        check_delta_range(self._file, demo, self._config.actions, recorded, plan.deltas)
        actions = self._rounding.float32("actions", recorded)
        info = _read_exported_info(self._file, group)
        rewards = self._rewards(group, length)
        self._dropped |= set(map(str, group)) - {self._config.actions, "rewards", "obs"}
        self._dropped |= {"model_file"} & set(group.attrs)
        self._dropped |= {f"ep_meta.{key}" for key in self._file.ep_meta(demo) if key != LANGUAGE}
        return Episode(
            images={name: images[name] for name in plan.spec.cameras},
            state=state,
            actions=actions,
            rewards=rewards,
            success=self._success(group, rewards, info),
            seed=int(info.get("seed", self._attribute(group, "seed", demo_number(demo)))),
            info=info["info"] if info else self._origin(demo),
        )

    def _observation(self, group: h5py.Group, key: str, length: int) -> np.ndarray:
        rows = read_dataset(group, f"obs/{key}", self._file.path)
        if len(rows) != length:
            raise UserError(f"{self._file.path}: {group.name} has {len(rows)} obs/{key}, but {length} actions.")
        return rows

    def _rewards(self, group: h5py.Group, length: int) -> np.ndarray:
        if "rewards" not in group:
            self._without_rewards = True
            return np.zeros(length, np.float32)
        return self._rounding.float32("rewards", read_dataset(group, "rewards", self._file.path).reshape(length))

    def _success(self, group: h5py.Group, rewards: np.ndarray, info: Mapping[str, Any]) -> bool:
        if self._config.success != "reward":
            return self._config.success == "all"
        if "success" in info:
            return bool(info["success"])
        # Isaac Lab's files mark the outcome and have no rewards.
        marked = self._attribute(group, "success", None)
        if marked is not None:
            return bool(marked)
        if "rewards" not in group:
            raise UserError(
                f"{self._file.path}: {group.name} has no rewards to derive success from: set success=all (robosuite's "
                "recorder keeps successful demonstrations only) or success=none."
            )
        return bool(rewards.max() >= SUCCESS_REWARD - _ROUNDING)

    def _attribute(self, group: h5py.Group, key: str, default: int | None) -> int | None:
        """A number among the demonstration's attributes; bool included."""
        value = group.attrs.get(key, default)
        if value is None:
            return None
        try:
            return int(value)
        except (TypeError, ValueError) as error:
            raise UserError(f"{self._file.path}: {key} of {group.name} is {value!r}, but must be a number.") from error

    def _origin(self, demo: str) -> dict[str, Any]:
        """The episode's info, used later for exporting and for selecting episodes."""
        masks = {f"{MASK}{mask}": demo in members for mask, members in self._file.masks.items()}
        env_args = {ENV_ARGS: self._file.env_args} if self._file.env_args else {}
        task = {TASK: self._plan.tasks[demo]} if self._plan.tasks else {}
        return {DEMO: demo} | masks | env_args | task


def _read_exported_info(file: RobomimicFile, group: h5py.Group) -> dict[str, Any]:
    """Success, seed and info as stored by our own export; empty for other files."""
    text = group.attrs.get(INFO)
    if text is None:
        return {}
    try:
        stored = json.loads(text)
        return {key: stored[key] for key in ("success", "seed", "info")}
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{file.path}: the attribute {INFO} of {group.name} is damaged ({error!r}).") from error
