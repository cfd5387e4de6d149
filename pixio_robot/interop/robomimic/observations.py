"""Selects the observations of a robomimic file for cameras and state, including those only a simulator can compute."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence

import h5py
import numpy as np

from pixio_robot.data.actions.named_columns import group_columns_by_key, override_names
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.interop.hdf5 import get_dataset, holds_images
from pixio_robot.interop.robomimic import env_metadata
from pixio_robot.interop.robomimic.hdf5_file import RobomimicFile, has_states
from pixio_robot.interop.robomimic.renderer import GetRenderer
from pixio_robot.interop.robomimic.settings import ImportConfig
from pixio_robot.types import CameraSpec, DemoSpec

IMAGE = "_image"
DEFAULT_STATE = ("eef_pos", "eef_quat", "gripper_qpos")
"""The state of each robot that robomimic's own image policies use."""


@dataclasses.dataclass(frozen=True)
class StateLayout:
    """`columns`: key -> its columns in the DemoSpec's state. `computed`: keys that the file does not contain."""

    columns: Mapping[str, Sequence[int]]
    computed: tuple[str, ...]
    names: tuple[str, ...]


def get_observations(group: h5py.Group) -> dict[str, h5py.Dataset]:
    obs = group.get("obs")
    if not isinstance(obs, h5py.Group):
        return {}
    return {key: value for key, value in obs.items() if isinstance(value, h5py.Dataset)}


def nested_groups(group: h5py.Group) -> list[str]:
    """The groups among a demonstration's observations, such as Isaac Lab's `datagen_info`; they are not imported."""
    obs = group.get("obs")
    if not isinstance(obs, h5py.Group):
        return []
    return sorted(str(key) for key, value in obs.items() if isinstance(value, h5py.Group))


def get_model_file(file: RobomimicFile, demo: str) -> str:
    model = file.model_file(demo)
    if model is None or not has_states(file.demo(demo)):
        raise UserError(
            f"{file.path}: {demo} has no states with a model_file, so no observations beyond those in the file can be "
            "computed."
        )
    return model


def choose_cameras(
    file: RobomimicFile, observations: Mapping[str, h5py.Dataset], config: ImportConfig
) -> tuple[dict[str, str], tuple[str, ...]]:
    """(cameras whose images are in the file -> their keys, cameras to render)."""
    available = {key.removesuffix(IMAGE): key for key, value in observations.items() if holds_images(value)}
    names = config.cameras or list(available)
    if config.render and not config.cameras:
        raise UserError("render=true needs cameras=, the names of the model's cameras to render.")
    if len(set(names)) < len(names):
        raise UserError(f"cameras={','.join(names)} contains duplicates.")
    stored = {name: available[name] for name in names if name in available and not config.render}
    missing = tuple(name for name in names if name not in stored)
    for name in missing:
        if f"{name}{IMAGE}" in observations and not config.render:
            shape = observations[f"{name}{IMAGE}"].shape
            raise UserError(
                f"{file.path}: {name}{IMAGE} is {observations[f'{name}{IMAGE}'].dtype} {shape}, but images must be "
                "uint8 (n, height, width, 3); render=true renders the camera instead."
            )
    if stored and missing:
        raise UserError(
            f"{file.path} has images of {', '.join(available)}, but none of {', '.join(missing)}: set render=true to "
            "render all cameras= alike."
        )
    return stored, missing


def choose_state(
    file: RobomimicFile,
    group: h5py.Group,
    observations: Mapping[str, h5py.Dataset],
    config: ImportConfig,
    exported: DemoSpec | None,
    get_scene: GetRenderer,
) -> StateLayout:
    """The keys in `state=`, else those stored by our own export, else the usual ones."""
    if exported is not None and not config.state:
        columns = group_columns_by_key(exported.state_names)
        for key in columns:
            if key not in observations:
                raise UserError(f"{file.path}: {group.name} has no obs/{key}, which its own DemoSpec names.")
        names = override_names("state_names", config.state_names, list(columns), exported.state_names)
        return StateLayout(columns, (), names)
    keys = list(dict.fromkeys(config.state)) or _default_state(file, observations)
    computed = [key for key in keys if key not in observations]
    if computed and not has_states(group):
        raise unknown_name(f"observation in {file.path}", computed[0], observations)
    shapes = {key: observations[key].shape[1:] for key in keys if key in observations}
    if computed:
        demo = str(group.name).rsplit("/", 1)[-1]
        first_rows = get_scene().observe(
            get_model_file(file, demo), get_dataset(group, "states", file.path)[:1], computed, []
        )
        shapes |= {key: value.shape[1:] for key, value in first_rows.items()}
    columns, names = {}, []
    for key in keys:
        column_names = env_metadata.state_names(file.env_args, key, shapes[key])
        columns[key] = list(range(len(names), len(names) + len(column_names)))
        names += column_names
    return StateLayout(columns, tuple(computed), override_names("state_names", config.state_names, keys, names))


def _default_state(file: RobomimicFile, observations: Mapping[str, h5py.Dataset]) -> list[str]:
    count = max(1, len(env_metadata.robot_names(file.env_args)))
    usual = [f"robot{robot}_{quantity}" for robot in range(count) for quantity in DEFAULT_STATE]
    if observations and not set(usual) <= set(observations):
        low = sorted(key for key, value in observations.items() if not holds_images(value))
        raise UserError(f"{file.path} lacks {usual[0]} or the like: set state= to keys from {', '.join(low)}.")
    return usual


def read_camera_spec(file: RobomimicFile, group: h5py.Group, name: str, key: str) -> CameraSpec:
    """The spec of a stored camera; with the pose that robomimic records since 0.5, for cameras that do not move."""
    _, height, width, _ = group[f"obs/{key}"].shape  # type: ignore[union-attr]
    intrinsics = extrinsics = None
    try:
        known = json.loads(group.attrs.get("camera_info", "{}")).get(name)
        if known is not None and "eye_in_hand" not in name:
            matrix = np.array(known["intrinsics"], np.float64)
            intrinsics = (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2])
            extrinsics = known["extrinsics"]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(f"{file.path}: the camera_info of {group.name} is damaged ({error!r}).") from error
    return CameraSpec(
        height=height,
        width=width,
        intrinsics=intrinsics,
        extrinsics=extrinsics,
        mounted_on="world" if extrinsics is not None else None,
    )
