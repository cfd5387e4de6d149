"""Renaming cameras, columns, robot, controller and task; numbers and images stay as they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from pixio_robot.data.demos.editing.rewrite import TASK, Edit
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.types import SEVERAL, DemoSpec, Episode


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpecOverrides:
    """New values for fields of the DemoSpec; empty ones leave the field as it is."""

    task: str = ""
    robot: str = ""
    controller: str = ""
    state_names: Sequence[str] = ()
    """Names of all state columns, in order."""
    action_names: Sequence[str] = ()


def rename_columns(spec: DemoSpec, names: Mapping[str, str], overrides: SpecOverrides | None = None) -> Edit:
    """Rename by {old: new}, where `old` is a camera, a column of state or actions without its unit (`action.0`), or the
    common prefix of several (`eef_rot` for eef_rot.x, .y and .z). If a camera and columns have the name, the camera is
    renamed. A column keeps its unit unless the new name has one.

    Raises UserError for an unknown name, if two names would be equal, and for replacing several tasks by one.
    """
    overrides = overrides or SpecOverrides()
    columns = {old: new for old, new in names.items() if old not in spec.cameras}
    fields = ("state_names", "action_names")
    before = {field: list(getattr(spec, field)) for field in fields}
    known = [key for field in fields for name in before[field] for key in _prefixes(name)]
    for old in columns:
        if old not in known:
            raise unknown_name("camera or column", old, {*spec.cameras, *known})
    after = {field: [_renamed_column(name, columns) for name in before[field]] for field in fields}
    for field in fields:
        if new_names := list(getattr(overrides, field)):
            if len(new_names) != len(before[field]):
                raise UserError(
                    f"{field}= has {len(new_names)} names for {len(before[field])}: {', '.join(before[field])}."
                )
            after[field] = new_names
    cameras = {old: names.get(old, old) for old in spec.cameras}
    _check_unique("cameras", list(cameras.values()))
    for field in fields:
        _check_unique(f"columns of {field}", after[field])
    texts = {key: text for key in ("task", "robot", "controller") if (text := getattr(overrides, key))}
    if "task" in texts and SEVERAL in spec.task:
        raise UserError(
            f"task={texts['task']} would replace several tasks: {spec.task}. Separate them first: "
            "`data filter where='task == ...'`."
        )

    def change(episode: Episode) -> Episode:
        info = {**episode.info, TASK: texts["task"]} if "task" in texts and TASK in episode.info else episode.info
        images = {cameras[name]: frames for name, frames in episode.images.items()}
        return dataclasses.replace(episode, images=images, info=info)

    new = dataclasses.replace(
        spec,
        cameras={cameras[name]: camera for name, camera in spec.cameras.items()},
        state_names=tuple(after["state_names"]),
        action_names=tuple(after["action_names"]),
        **texts,
    )
    notes = [f"camera {old} -> {new}" for old, new in cameras.items() if old != new]
    notes += [
        f"{field}: {old} -> {now}"
        for field in fields
        for old, now in zip(before[field], after[field], strict=True)
        if old != now
    ]
    notes += [f"{key}: {getattr(spec, key)} -> {text}" for key, text in texts.items()]
    return Edit(new, change, tuple(notes))


def _prefixes(name: str) -> list[str]:
    """The names that may refer to a column: its name without the unit, and its prefix before each dot."""
    parts = _without_unit(name).split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]


def _renamed_column(name: str, names: Mapping[str, str]) -> str:
    for key in _prefixes(name):
        if key in names:
            new = _without_unit(names[key])
            unit = names[key][len(new) :] or name[len(_without_unit(name)) :]
            return f"{new}{_without_unit(name)[len(key) :]}{unit}"
    return name


def _without_unit(name: str) -> str:
    return name.partition(" [")[0]


def _check_unique(kind: str, names: Sequence[str]) -> None:
    if twice := sorted({name for name in names if list(names).count(name) > 1}):
        raise UserError(f"Two {kind} would have the same name: {', '.join(twice)}.")
