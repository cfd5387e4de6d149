"""The plan of an import from a robomimic file, made from its first demonstration and the settings.

Observations in the file are copied. A simulator computes the others from `states` and `model_file`: cameras by
rendering, robot observations by robosuite's definitions.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Container, Mapping, Sequence

import h5py

from pixio_robot.data.actions.find_poses import state_keys_for_conversion
from pixio_robot.data.demos.editing.convert_actions import ABSOLUTE, DELTA
from pixio_robot.errors import UserError
from pixio_robot.interop.demo_formats import join_task_names, multi_task_note
from pixio_robot.interop.hdf5 import get_dataset, read_dataset
from pixio_robot.interop.robomimic import env_metadata
from pixio_robot.interop.robomimic.absolute_actions import check_delta_range, resolve_action_key
from pixio_robot.interop.robomimic.hdf5_file import RobomimicFile, has_states
from pixio_robot.interop.robomimic.observations import (
    StateLayout,
    choose_cameras,
    choose_state,
    get_model_file,
    get_observations,
    nested_groups,
    read_camera_spec,
)
from pixio_robot.interop.robomimic.renderer import GetRenderer
from pixio_robot.interop.robomimic.settings import SPEC, ImportConfig
from pixio_robot.types import UNKNOWN, DemoSpec

LANGUAGE = "lang"
"""Key of ep_meta: the instruction of an episode."""


@dataclasses.dataclass(frozen=True)
class ImportPlan:
    """`stored`: our camera name -> the key of its images. `rendered`: cameras without images in the file. `deltas`: the
    columns of the actions that env_args describe as deltas of a pose. `tasks`: demonstration -> its own task, if there
    are several."""

    spec: DemoSpec
    stored: Mapping[str, str]
    rendered: tuple[str, ...]
    state: StateLayout
    deltas: Sequence[int]
    tasks: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def is_computed(self) -> bool:
        """Whether a simulator computes anything."""
        return bool(self.rendered or self.state.computed)


def make_import_plan(
    file: RobomimicFile, demos: Sequence[str], config: ImportConfig, get_scene: GetRenderer
) -> ImportPlan:
    """Raises UserError for settings that do not match the file, or if neither specifies something required."""
    demo = demos[0]
    group = file.demo(demo)
    observations = get_observations(group)
    exported = _exported_spec(file)
    stored, rendered = choose_cameras(file, observations, config)
    state = choose_state(file, group, observations, config, exported, get_scene)
    width = _action_width(file, group, config.actions)
    action_key = resolve_action_key(file, config, exported)
    action_names, deltas, notes = _plan_actions(file, demo, config, exported, action_key, width)
    cameras = {name: read_camera_spec(file, group, name, key) for name, key in stored.items()}
    if rendered:
        cameras |= get_scene().cameras(get_model_file(file, demo), rendered)
        notes.append(f"rendered from the recorded states: {', '.join(rendered)}")
    if not cameras and exported is None:
        renders = "; set cameras= to render some" if file.model_file(demo) and has_states(group) else ""
        notes.append(f"the file has no images, so the store has no cameras{renders}")
    if exported is not None:
        cameras |= {name: camera for name, camera in exported.cameras.items() if name in stored}
    if state.computed:
        notes.append(f"computed from the recorded states: {', '.join(state.computed)}")
    if not config.state_names and (
        turns := [key for key in state.columns if env_metadata.has_unknown_order(file.env_args, key)]
    ):
        notes.append(
            f"{', '.join(turns)}: w, x, y, z or x, y, z, w, depending on the version of Isaac Lab, which the file does "
            "not name; so the columns are numbered (state_names= names them: eef_quat_wxyz.w or eef_quat.x first)"
        )
    spec = dataclasses.replace(
        _make_spec(file, config, exported, bool(rendered), action_key),
        cameras={name: cameras[name] for name in (config.cameras or cameras)},
        state_names=state.names,
        action_names=tuple(action_names),
    )
    left_out = sorted(set(observations) - set(state.columns) - set(stored.values()))
    if left_out:
        notes.append(f"left out of the observations: {', '.join(left_out)} (select with state=)")
    if nested := nested_groups(group):
        notes.append(f"left out of the observations, as groups of arrays: {', '.join(nested)}")
    notes += [
        f"the mask {mask} names demonstrations that are not in the file: {count}" for mask, count in file.absent.items()
    ]
    if (needed := state_keys_for_conversion(spec, list(state.columns))) and _has_observations(
        file, demo, observations, needed
    ):
        notes.append(
            f"`data actions to={DELTA if ABSOLUTE in spec.controller else ABSOLUTE}` needs the pose of the site that "
            f"the controller moves, which eef_quat is not: import with state={','.join(needed)}"
        )
    tasks = {} if config.task or exported is not None else _tasks(file, demos)
    names = list(dict.fromkeys(tasks.values()))
    if names:
        spec = dataclasses.replace(spec, task=join_task_names(names, file.path.name))
    if len(names) > 1:
        notes.append(multi_task_note(len(names)))
    return ImportPlan(spec, stored, rendered, state, deltas, tasks if len(names) > 1 else {}, tuple(notes))


def _plan_actions(
    file: RobomimicFile, demo: str, config: ImportConfig, exported: DemoSpec | None, action_key: str, width: int
) -> tuple[list[str], list[int], list[str]]:
    """(names of the actions' columns, those columns that env_args describe as deltas of a pose, notes)."""
    names, known = env_metadata.action_names(file.env_args, action_key, width)
    # Not if anything else says what the actions are: env_args may be wrong.
    deltas = env_metadata.delta_pose_columns(names) if config.absolute is None else []
    if exported is not None and config.actions == "actions":
        names, known, deltas = list(exported.action_names), True, []
    if config.action_names:
        names, known, deltas = config.action_names, True, []
    recorded = read_dataset(file.demo(demo), config.actions, file.path)
    check_delta_range(file, demo, config.actions, recorded, deltas)
    if len(names) != width:
        raise UserError(f"{file.path} has actions of {width} columns, but {len(names)} names for them.")
    note = f"the file does not specify what the {width} columns of {config.actions} mean: name them with action_names="
    return names, deltas, [] if known else [note]


def _tasks(file: RobomimicFile, demos: Sequence[str]) -> dict[str, str]:
    """Demonstration -> its instruction, which RoboCasa stores in ep_meta; the environment where there is none. Empty
    if no demonstration has one."""
    instructions = {demo: str(file.ep_meta(demo).get(LANGUAGE) or "") for demo in demos}
    if not any(instructions.values()):
        return {}
    return {demo: instruction or _env_name(file) for demo, instruction in instructions.items()}


def _env_name(file: RobomimicFile) -> str:
    return str(file.env_args.get("env_name") or file.path.stem)


def _has_observations(file: RobomimicFile, demo: str, observations: Container[str], keys: Sequence[str]) -> bool:
    """Whether the file has those observations, or what a simulator needs to compute them."""
    return all(key in observations for key in keys) or (
        has_states(file.demo(demo)) and file.model_file(demo) is not None
    )


def _exported_spec(file: RobomimicFile) -> DemoSpec | None:
    """The DemoSpec that our own export stores beside robomimic's attributes; None if there is none."""
    text = file.attributes.get(SPEC)
    if text is None:
        return None
    try:
        return DemoSpec.from_json(json.loads(text))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file.path}: the attribute {SPEC} of data is damaged ({error!r}).") from error


def _make_spec(
    file: RobomimicFile, config: ImportConfig, exported: DemoSpec | None, rendered: bool, action_key: str
) -> DemoSpec:
    """The DemoSpec but for cameras, state and actions: our own export's or that of env_args, with what is set."""
    env_args, spec = file.env_args, exported
    if spec is None:
        hz = config.control_hz or env_metadata.control_hz(env_args)
        if hz is None:
            raise UserError(f"{file.path} does not store the control rate: set control_hz=.")
        simulator, version = env_metadata.simulator_name(env_args), env_args.get("env_version")
        spec = DemoSpec(
            task=_env_name(file),
            robot=" + ".join(env_metadata.robot_names(env_args)) or UNKNOWN,
            simulator=simulator,
            simulator_version=f"{simulator} {version}" if version else UNKNOWN,
            controller=env_metadata.controller_name(env_args, action_key),
            control_hz=hz,
            cameras={},
            state_names=(),
            action_names=(),
            render_quality=UNKNOWN,
            source=f"robomimic: {file.path.name}",
        )
    elif config.actions != "actions":
        spec = dataclasses.replace(spec, controller=env_metadata.controller_name(env_args, action_key))
    if rendered:
        spec = dataclasses.replace(spec, render_quality=config.render_quality)
    overrides = {name: getattr(config, name) for name in ("task", "robot", "controller", "source", "licence")}
    overrides = {name: text for name, text in overrides.items() if text}
    return dataclasses.replace(spec, control_hz=config.control_hz or spec.control_hz, **overrides)


def _action_width(file: RobomimicFile, group: h5py.Group, key: str) -> int:
    shape = get_dataset(group, key, file.path).shape
    if len(shape) != 2:
        raise UserError(f"{file.path}: {key} of {group.name} has shape {shape}, but must be (steps, columns).")
    return shape[1]
