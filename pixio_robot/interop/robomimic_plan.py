"""What to take from a robomimic file, decided by its first demonstration and the settings: the DemoSpec and its parts.

Observations that the file holds are copied. What it does not hold is worked out from `states` and `model_file` by a
simulator: cameras by rendering, robots' readings by robosuite's definitions.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence

import h5py
import numpy as np

from pixio_robot.errors import UserError, unknown_name
from pixio_robot.interop import robomimic_meaning as meaning
from pixio_robot.interop.named_columns import grouped
from pixio_robot.interop.robomimic_file import RobomimicFile, dataset
from pixio_robot.interop.robomimic_scene import Scene
from pixio_robot.interop.robomimic_settings import SPEC, ImportConfig
from pixio_robot.types import CameraSpec, DemoSpec

IMAGE = "_image"
USUAL_STATE = ("eef_pos", "eef_quat", "gripper_qpos")
"""What robomimic's own image policies are given of each robot."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """`stored`, `rendered`: our camera's name -> the observation's key. `state`: keys in the DemoSpec's order;
    `computed` are those of them that only the simulator knows."""

    spec: DemoSpec
    stored: Mapping[str, str]
    rendered: tuple[str, ...]
    state: tuple[str, ...]
    computed: tuple[str, ...]
    columns: Mapping[str, Sequence[int]]
    notes: tuple[str, ...]


def plan(file: RobomimicFile, demo: str, config: ImportConfig, scene: Scene) -> Plan:
    """Raises UserError for settings that do not fit to the file, and for what it leaves open and they do not say."""
    group = file.demo(demo)
    observations = _observations(group)
    written = _written_spec(file)
    stored, rendered = _cameras(file, observations, config)
    notes: list[str] = []
    state, computed, state_names = _state(file, group, observations, config, written, scene)
    width = _width(file, group, config.actions)
    action_names, known = meaning.action_names(file.env_args, config.actions, width)
    if written is not None and config.actions == "actions":
        action_names, known = list(written.action_names), True
    if config.action_names:
        action_names, known = config.action_names, True
    if len(action_names) != width:
        raise UserError(f"{file.path} has actions of {width} numbers, and {len(action_names)} names for them.")
    if not known:
        notes.append(
            f"the file does not say what the {width} numbers of {config.actions} mean: name them action_names="
        )
    cameras = {name: _stored_camera(file, group, name, key) for name, key in stored.items()}
    if rendered:
        cameras |= scene.cameras(model_of(file, demo), rendered)
        notes.append(f"rendered from the recorded states: {', '.join(rendered)}")
    if written is not None:
        cameras |= {name: camera for name, camera in written.cameras.items() if name in stored}
    if computed:
        notes.append(f"worked out from the recorded states: {', '.join(computed)}")
    spec = dataclasses.replace(
        _spec(file, config, written, bool(rendered)),
        cameras={name: cameras[name] for name in (config.cameras or cameras)},
        state_names=tuple(state_names),
        action_names=tuple(action_names),
    )
    left_out = sorted(set(observations) - set(state) - set(stored.values()))
    if left_out:
        notes.append(f"left out of the observations: {', '.join(left_out)} (state= chooses)")
    return Plan(spec, stored, rendered, tuple(state), tuple(computed), grouped(state_names), tuple(notes))


def model_of(file: RobomimicFile, demo: str) -> str:
    model = file.model_file(demo)
    if model is None or "states" not in file.demo(demo):
        raise UserError(
            f"{file.path}: {demo} has no states with a model_file, so there are only the observations in the file."
        )
    return model


def _observations(group: h5py.Group) -> dict[str, h5py.Dataset]:
    found = group.get("obs")
    if not isinstance(found, h5py.Group):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, h5py.Dataset)}


def _written_spec(file: RobomimicFile) -> DemoSpec | None:
    """The one that our own export leaves beside robomimic's attributes."""
    text = file.attributes.get(SPEC)
    if text is None:
        return None
    try:
        return DemoSpec.from_json(json.loads(text))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file.path}: the attribute {SPEC} of data is damaged ({error!r}).") from error


def _spec(file: RobomimicFile, config: ImportConfig, written: DemoSpec | None, rendered: bool) -> DemoSpec:
    env_args = file.env_args
    if written is None:
        hz = config.control_hz or meaning.control_hz(env_args)
        if hz is None:
            raise UserError(f"{file.path} does not say how many steps a second were recorded: say control_hz=.")
        simulator, version = meaning.simulator(env_args), env_args.get("env_version")
        written = DemoSpec(
            task=str(env_args.get("env_name", file.path.stem)),
            robot=" + ".join(meaning.robots(env_args)) or "unknown",
            simulator=simulator,
            simulator_version=f"{simulator} {version}" if version else "unknown",
            controller=meaning.controller_name(env_args, config.actions),
            control_hz=hz,
            cameras={},
            state_names=(),
            action_names=(),
            render_quality="unknown",
            source=f"robomimic: {file.path.name}",
        )
    elif config.actions != "actions":
        written = dataclasses.replace(written, controller=meaning.controller_name(env_args, config.actions))
    if rendered:
        written = dataclasses.replace(written, render_quality=config.render_quality)
    said = {name: getattr(config, name) for name in ("task", "robot", "controller", "source", "licence")}
    said = {name: text for name, text in said.items() if text}
    return dataclasses.replace(written, control_hz=config.control_hz or written.control_hz, **said)


def _cameras(
    file: RobomimicFile, observations: Mapping[str, h5py.Dataset], config: ImportConfig
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Cameras whose images are in the file, and those to render."""
    there = {key.removesuffix(IMAGE): key for key, value in observations.items() if _is_images(value)}
    wanted = config.cameras or list(there)
    if config.render and not config.cameras:
        raise UserError("render=true needs cameras=, the names of the model's cameras to render.")
    if len(set(wanted)) < len(wanted):
        raise UserError(f"cameras={','.join(wanted)} names a camera twice.")
    stored = {name: there[name] for name in wanted if name in there and not config.render}
    missing = tuple(name for name in wanted if name not in stored)
    for name in missing:
        if f"{name}{IMAGE}" in observations and not config.render:
            shape = observations[f"{name}{IMAGE}"].shape
            raise UserError(
                f"{file.path}: {name}{IMAGE} has the shape {shape} of {observations[f'{name}{IMAGE}'].dtype}; images "
                "are uint8 (n, height, width, 3). render=true renders it anew."
            )
    if stored and missing:
        raise UserError(
            f"{file.path} has images of {', '.join(there)} and none of {', '.join(missing)}: render=true renders all "
            "cameras= in the same way."
        )
    return stored, missing


def _is_images(value: h5py.Dataset) -> bool:
    return value.dtype == np.uint8 and value.ndim == 4 and value.shape[3] == 3


def _state(
    file: RobomimicFile,
    group: h5py.Group,
    observations: Mapping[str, h5py.Dataset],
    config: ImportConfig,
    written: DemoSpec | None,
    scene: Scene,
) -> tuple[list[str], list[str], list[str]]:
    """(keys, those that only the simulator knows, names of the columns)."""
    if written is not None and not config.state:
        keys = list(grouped(written.state_names))
        for key in keys:
            if key not in observations:
                raise UserError(f"{file.path}: {group.name} has no obs/{key}, which its own DemoSpec names.")
        return keys, [], list(config.state_names or written.state_names)
    keys = config.state or _usual_state(file, observations)
    computed = [key for key in keys if key not in observations]
    if computed and "states" not in group:
        raise unknown_name(f"observation in {file.path}", computed[0], observations)
    shapes = {key: observations[key].shape[1:] for key in keys if key in observations}
    if computed:
        demo = str(group.name).rsplit("/", 1)[-1]
        found = scene.observe(model_of(file, demo), dataset(group, "states", file.path)[:1], computed, [])
        shapes |= {key: value.shape[1:] for key, value in found.items()}
    names = [name for key in keys for name in meaning.state_names(file.env_args, key, shapes[key])]
    if config.state_names and len(config.state_names) != len(names):
        raise UserError(
            f"state_names= has {len(config.state_names)} names for {len(names)} numbers of {', '.join(keys)}."
        )
    return keys, computed, config.state_names or names


def _usual_state(file: RobomimicFile, observations: Mapping[str, h5py.Dataset]) -> list[str]:
    count = max(1, len(meaning.robots(file.env_args)))
    usual = [f"robot{robot}_{quantity}" for robot in range(count) for quantity in USUAL_STATE]
    if observations and not set(usual) <= set(observations):
        low = sorted(key for key, value in observations.items() if not _is_images(value))
        raise UserError(f"{file.path} has no {usual[0]} and so on: choose the state, state=..., from {', '.join(low)}.")
    return usual


def _width(file: RobomimicFile, group: h5py.Group, key: str) -> int:
    shape = dataset(group, key, file.path).shape
    if len(shape) != 2:
        raise UserError(f"{file.path}: {key} of {group.name} has the shape {shape} and must be (steps, numbers).")
    return shape[1]


def _stored_camera(file: RobomimicFile, group: h5py.Group, name: str, key: str) -> CameraSpec:
    """With the place that robomimic notes since version 0.5, of cameras that do not move."""
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
