"""Import of a diffusion_policy replay buffer into a demonstration store, one episode at a time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pixio_robot.data.actions.named_columns import column_names, group_columns_by_key, override_names
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.interop.demo_formats import Conversion, import_episodes
from pixio_robot.interop.diffusion_policy.container import BUFFER
from pixio_robot.interop.diffusion_policy.films import Films, films_folder, recorded_hz
from pixio_robot.interop.diffusion_policy.replay_buffer import ReplayBuffer
from pixio_robot.interop.diffusion_policy.settings import INFOS, SPEC, ImportConfig
from pixio_robot.interop.diffusion_policy.zarr_arrays import ArrayReader
from pixio_robot.interop.rounding import RoundingTracker
from pixio_robot.types import UNKNOWN, CameraSpec, DemoSpec, Episode

STATE, ACTION, REWARD = "state", "action", "reward"
_ROBOT = "robot"
_OF_THE_EPISODE = ("_demo_start_pose", "_demo_end_pose")
"""UMI repeats both at every step. A policy cannot know in advance where an episode will end."""


def import_demos(source: Path, out: Path, config: ImportConfig) -> Conversion:
    """Import the buffer. Raises UserError for an invalid store or settings, and then writes nothing."""
    source = source / BUFFER if (source / BUFFER).is_dir() else source
    with ReplayBuffer(source, fill_missing=config.fill_missing) as buffer:
        return import_episodes(_Reader(buffer, config), len(buffer), out)


class _Reader:
    """Reads the episodes of one buffer and keeps track of what is lost in conversion."""

    def __init__(self, buffer: ReplayBuffer, config: ImportConfig) -> None:
        self._buffer, self._config = buffer, config
        self._attributes = buffer.attributes()
        written = _written_spec(buffer, self._attributes)
        has_images = written is not None or any(map(_are_images, buffer.arrays.values()))
        self._films_folder = None if has_images else films_folder(buffer)
        self._recorded_hz = recorded_hz(buffer) if self._films_folder else 0.0
        self._films = self._open_films()
        self._cameras = self._camera_keys(written) if self._films is None else list(self._films.cameras)
        self._state = config.state or self._state_keys(written)
        self._actions = config.actions or self._action_keys()
        self.spec = self._spec(written)
        if self._films is None and (config.height or config.width):
            raise UserError(
                f"height= and width= are for films, and none are read here: import {buffer.path} without them, then "
                "change the size of its images with `pixio-robot data resize`."
            )
        self._order = self._state_order(written)
        self._success = buffer.meta("success")
        self._seeds = buffer.meta("seed")
        self._infos = self._attributes.get(INFOS) or [{}] * len(buffer)
        self._rewards = self._reward_key()
        self._rounding = RoundingTracker()
        self._rounded_images: set[str] = set()
        self._written = written is not None

    def notes(self) -> list[str]:
        numbers = {self._columns(name)[0] for name in (*self._state, *self._actions)}
        used = {*self._cameras, *numbers, self._rewards}
        left_out = sorted(set(self._buffer.arrays) - used)
        notes = [f"left out of data: {', '.join(left_out)}"] if left_out else []
        if not self._cameras and not self._written:
            notes.append(
                "no array contains images, (n, height, width, 3) or uint8 (n, 3, height, width), so the store has no "
                "cameras" + (f"; the films in {self._films_folder} are not read" if self._films_folder else "")
            )
        stored = () if self._films else self._cameras
        if turned := [key for key in stored if _channels_first(self._buffer.array(key).shape)]:
            notes.append(f"images stored as (n, 3, height, width), transposed: {', '.join(turned)}")
        notes += self._rounding.notes()
        if self._rounded_images:
            notes.append(f"rounded to uint8: {', '.join(sorted(self._rounded_images))}")
        if not self._rewards:
            notes.append("no rewards found: all of them are 0 (set rewards= to the key of an array)")
        if self._success is None:
            success = str(self._config.success).lower()
            notes.append(f"the format does not store which episodes succeeded: assuming success={success} for all")
        return notes

    def episodes(self) -> Iterator[Episode]:
        return map(self._episode, range(len(self._buffer)))

    def _episode(self, number: int) -> Episode:
        start, stop = self._buffer.steps(number)
        rewards = (
            self._rounding.float32(self._rewards, self._rows(self._rewards, start, stop).reshape(stop - start))
            if self._rewards
            else np.zeros(stop - start, np.float32)
        )
        return Episode(
            images={key: self._pictures(key, number, start, stop) for key in self._cameras},
            state=self._joined(self._state, start, stop)[:, self._order],
            actions=self._joined(self._actions, start, stop),
            rewards=rewards,
            success=self._config.success if self._success is None else bool(self._success[number]),
            seed=number if self._seeds is None else int(self._seeds[number]),
            info=self._infos[number],
        )

    def _pictures(self, key: str, number: int, start: int, stop: int) -> np.ndarray:
        if self._films is not None:
            return self._films.images(number, key, stop - start)
        return self._images(key, self._rows(key, start, stop))

    def _rows(self, key: str, start: int, stop: int) -> np.ndarray:
        return self._buffer.array(key).rows(start, stop)

    def _joined(self, keys: list[str], start: int, stop: int) -> np.ndarray:
        parts = []
        for name in keys:
            key, columns = self._columns(name)
            parts.append(
                self._rounding.float32(key, self._rows(key, start, stop).reshape(stop - start, -1)[:, columns])
            )
        return np.concatenate(parts, axis=1)

    def _columns(self, name: str) -> tuple[str, list[int]]:
        """The array with that name and all its columns, or the single column with that name (`state.0`)."""
        key = name.rpartition(".")[0]
        if name in self._buffer.arrays or key not in self._buffer.arrays:
            return name, list(range(len(self._made(name))))
        known = [made.split(" [")[0] for made in self._made(key)]
        if name not in known:
            raise unknown_name(f"column of data/{key} in {self._buffer.path}", name, known)
        return key, [known.index(name)]

    def _made(self, key: str) -> list[str]:
        """Names for the columns of an array."""
        return column_names(key, self._buffer.array(key).shape[1:] or (1,))

    def _images(self, key: str, images: np.ndarray) -> np.ndarray:
        """uint8 (n, h, w, 3) from uint8, or from floats in which `white` is the maximum; also from (n, 3, h, w)."""
        if _channels_first(images.shape):
            images = np.ascontiguousarray(np.moveaxis(images, 1, 3))
        if images.dtype == np.uint8:
            return images
        white, where = self._config.white, f"data/{key} in {self._buffer.path}"
        if not np.isfinite(images).all() or images.min() < 0 or images.max() > (white or 255):
            raise UserError(
                f"{where} has pixel values from {images.min():g} to {images.max():g}, outside the range 0 to "
                f"{white or 255:g}" + ("; set white=255." if white == 1 else ".")
            )
        if not white and 0 < images.max() <= 1:
            raise UserError(
                f"{where} has no pixel value above 1: set white=1, or white=255 if the images really are that dark."
            )
        scaled = images * (255 / (white or 255))
        pixels = np.rint(scaled).astype(np.uint8)
        if not np.array_equal(pixels, scaled):
            self._rounded_images.add(key)
        return pixels

    def _open_films(self) -> Films | None:
        config, hz = self._config, self._recorded_hz or self._config.control_hz
        if self._films_folder is None or not config.films or not hz:  # without a rate, an error follows
            return None
        return Films.open(self._films_folder, config, hz)

    def _camera_keys(self, written: DemoSpec | None) -> list[str]:
        keys = self._config.cameras or (list(written.cameras) if written else [])
        for key in keys:
            shape = self._buffer.array(key).shape
            if not (_channels_last(shape) or _channels_first(shape)):
                raise UserError(
                    f"data/{key} in {self._buffer.path} has shape {shape}, but images must be (n, height, width, 3) or "
                    "(n, 3, height, width)."
                )
        return keys or [key for key, array in self._buffer.arrays.items() if _are_images(array)]

    def _state_keys(self, written: DemoSpec | None) -> list[str]:
        arrays = self._buffer.arrays
        if STATE in arrays:
            return [STATE]
        if written is not None:
            return list(group_columns_by_key(written.state_names))
        low = [key for key, array in arrays.items() if not _are_images(array) and key != ACTION]
        robot = [key for key in low if key.startswith(_ROBOT) and not key.endswith(_OF_THE_EPISODE)]
        if not robot:
            raise UserError(f"{self._buffer.path} has no data/{STATE}: set state= to keys from {', '.join(low)}.")
        return robot

    def _state_order(self, written: DemoSpec | None) -> list[int] | slice:
        """The position of each DemoSpec column in the joined parts; our own export groups columns by key."""
        if written is None or self._config.state or self._state == [STATE]:
            return slice(None)
        joined = [column for columns in group_columns_by_key(written.state_names).values() for column in columns]
        return np.argsort(joined).tolist() if len(joined) == self.spec.state_dim else slice(None)

    def _reward_key(self) -> str:
        key = self._config.rewards or (REWARD if REWARD in self._buffer.arrays else "")
        if key and math.prod(shape := self._buffer.array(key).shape) != shape[0]:
            raise UserError(
                f"data/{key} in {self._buffer.path} has shape {shape}, but rewards must be one number per step."
            )
        return key

    def _action_keys(self) -> list[str]:
        if ACTION not in self._buffer.arrays:
            raise UserError(
                f"{self._buffer.path} has no data/{ACTION}: set actions= to keys from {', '.join(self._buffer.arrays)}."
            )
        return [ACTION]

    def _names(self, which: str, keys: list[str], said: list[str], written: Sequence[str]) -> tuple[str, ...]:
        """Names of the columns: the user's, else those stored by our export, else generated from the keys."""
        chosen = [self._columns(name) for name in keys]
        made = [self._made(key)[column] for key, columns in chosen for column in columns]
        return override_names(which, said, keys, written if len(written) == len(made) else made)

    def _spec(self, written: DemoSpec | None) -> DemoSpec:
        config, path = self._config, self._buffer.path
        recorded = path.absolute().parent.name if path.name == BUFFER else ""
        spec = written or DemoSpec(
            task=recorded or path.name.split(".")[0],
            robot=UNKNOWN,
            simulator=UNKNOWN,
            simulator_version=UNKNOWN,
            controller=UNKNOWN,
            control_hz=self._recorded_hz,
            cameras={},
            state_names=(),
            action_names=(),
            render_quality=UNKNOWN,
            source=f"diffusion_policy: {recorded or path.name}",
        )
        settings = ("task", "robot", "controller", "control_hz", "source", "licence")
        given: dict[str, Any] = {
            key: value for key in settings if (value := getattr(config, key)) != getattr(ImportConfig, key)
        }
        spec = dataclasses.replace(spec, **given)
        if not spec.control_hz:
            raise UserError(f"{path} does not store the control rate: set control_hz= (Push-T: 10).")
        own_state = () if config.state else spec.state_names
        own_actions = () if config.actions else spec.action_names
        return dataclasses.replace(
            spec,
            cameras={key: spec.cameras.get(key) or self._camera(key) for key in self._cameras},
            state_names=self._names("state_names", self._state, config.state_names, own_state),
            action_names=self._names("action_names", self._actions, config.action_names, own_actions),
        )

    def _camera(self, key: str) -> CameraSpec:
        if self._films is not None:
            return CameraSpec(height=self._films.height, width=self._films.width)
        shape = self._buffer.array(key).shape
        height, width = shape[2:] if _channels_first(shape) else shape[1:3]
        return CameraSpec(height=height, width=width)


def _are_images(array: ArrayReader) -> bool:
    """Whether to take the array for a camera unasked. Floats (n, 3, h, w) could be anything, such as matrices."""
    return _channels_last(array.shape) or (_channels_first(array.shape) and array.dtype == np.uint8)


def _channels_last(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[3] == 3


def _channels_first(shape: tuple[int, ...]) -> bool:
    """As the converters of RoboTwin store images."""
    return len(shape) == 4 and shape[1] == 3 and shape[3] != 3


def _written_spec(buffer: ReplayBuffer, attributes: dict[str, Any]) -> DemoSpec | None:
    """The DemoSpec that our own export stores in the attributes; None if there is none."""
    text = attributes.get(SPEC)
    if text is None:
        return None
    try:
        spec = DemoSpec.from_json(text)
        infos = attributes[INFOS]
        if not isinstance(infos, list) or len(infos) != len(buffer):
            raise ValueError(f"{len(infos)} infos for {len(buffer)} episodes")
        return spec
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f".zattrs in {buffer.path}: {SPEC} or {INFOS} is damaged ({error!r}).") from error
