"""Import of a robomimic file into a demonstration store, one demonstration at a time."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pixio_robot.data.demos.editing.rewrite import TASK
from pixio_robot.errors import UserError
from pixio_robot.interop.demo_formats import Conversion, import_episodes
from pixio_robot.interop.hdf5 import read_dataset
from pixio_robot.interop.robomimic import env_metadata
from pixio_robot.interop.robomimic.absolute_actions import check_delta_range
from pixio_robot.interop.robomimic.hdf5_file import RobomimicFile, demo_number
from pixio_robot.interop.robomimic.import_plan import LANGUAGE, ImportPlan, make_import_plan
from pixio_robot.interop.robomimic.observations import get_model_file
from pixio_robot.interop.robomimic.renderer import GetRenderer, OpenRenderer, StateRenderer
from pixio_robot.interop.robomimic.settings import DEMO, ENV_ARGS, INFO, MASK, ImportConfig
from pixio_robot.interop.rounding import RoundingTracker
from pixio_robot.types import Episode

_ROUNDING = 1e-6
"""Relative to the reward of success."""


def _no_renderer(image_size: int, render_quality: str) -> StateRenderer:
    raise UserError("The file lacks observations that only a simulator can compute, and no simulator was provided.")


def import_demos(source: Path, out: Path, config: ImportConfig, open_scene: OpenRenderer = _no_renderer) -> Conversion:
    """Import the file. Raises UserError for an invalid file or settings, and then writes nothing.

    `open_scene` renders recorded states; without it, only what the file contains can be imported.
    """
    with RobomimicFile(source) as file, contextlib.ExitStack() as stack:

        @functools.cache
        def get_scene() -> StateRenderer:
            """Starts the simulator, which a file that contains everything does not need."""
            return stack.enter_context(contextlib.closing(open_scene(config.image_size, config.render_quality)))

        demos = file.chosen(config.mask)
        plan = make_import_plan(file, demos, config, get_scene)
        for demo in demos:
            file.length(demo)  # raises before hours of rendering
        return import_episodes(_Reader(file, demos, plan, config, get_scene), len(demos), out)


class _Reader:
    """Reads the episodes of one file according to the plan, and keeps track of what is lost in conversion."""

    def __init__(
        self, file: RobomimicFile, demos: Sequence[str], plan: ImportPlan, config: ImportConfig, get_scene: GetRenderer
    ) -> None:
        self.spec = plan.spec
        self._file, self._demos, self._plan, self._config, self._get_scene = file, demos, plan, config, get_scene
        self._rounding = RoundingTracker()
        self._dropped: set[str] = set()
        self._without_rewards = False

    def notes(self) -> list[str]:
        notes = [*self._plan.notes, *(self._get_scene().notes() if self._plan.is_computed else ())]
        notes += self._rounding.notes()
        if self._dropped:
            notes.append(f"not kept in the store: {', '.join(sorted(self._dropped))}")
        if self._without_rewards:
            notes.append("the file has no rewards: all of them are 0")
        return notes

    def episodes(self) -> Iterator[Episode]:
        return map(self._episode, self._demos)

    def _episode(self, demo: str) -> Episode:
        group, plan = self._file.demo(demo), self._plan
        length = self._file.length(demo)
        computed: Mapping[str, np.ndarray] = {}
        if plan.is_computed:
            states, model = read_dataset(group, "states", self._file.path), get_model_file(self._file, demo)
            computed = self._get_scene().observe(model, states, plan.state.computed, plan.rendered)
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
        return bool(rewards.max() >= env_metadata.success_reward(self._file.env_args) * (1 - _ROUNDING))

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
