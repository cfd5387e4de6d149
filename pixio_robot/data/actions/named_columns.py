"""Mapping between one array with named columns (a DemoSpec's state) and several arrays with one key each.

The column `robot0_eef_pos.x [m]` belongs to the key `robot0_eef_pos`; a column without a dot is its own key.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pixio_robot.errors import UserError

COMPONENTS = {
    "eef_pos": ("xyz", "m"),
    "eef_quat": ("xyzw", "1"),
    "eef_quat_site": ("xyzw", "1"),
    "eef_quat_wxyz": ("wxyz", "1"),
    "eef_rot_axis_angle": ("xyz", "rad"),
    "eef_vel_lin": ("xyz", "m/s"),
    "eef_vel_ang": ("xyz", "rad/s"),
    "joint_pos": ("", "rad"),
    "joint_vel": ("", "rad/s"),
    "joint_pos_cos": ("", "1"),
    "joint_pos_sin": ("", "1"),
    "gripper_width": ("", "m"),
}
"""Ending of a well-known robosuite or UMI key -> (names of its columns, unit)."""


def group_columns_by_key(names: Sequence[str]) -> dict[str, list[int]]:
    """{key: its columns in order}. Raises UserError for a name that cannot be the name of an array."""
    keys: dict[str, list[int]] = {}
    for column, name in enumerate(names):
        key = name.split(" [")[0]
        key = key.rpartition(".")[0] or key
        if not key or "/" in key or key.startswith("."):
            raise UserError(f"The column {name!r} cannot name an array: it needs letters before '.' and no '/'.")
        keys.setdefault(key, []).append(column)
    return keys


def column_names(key: str, shape: Sequence[int], gripper_unit: str = "") -> list[str]:
    """Names for the columns of an array with rows of `shape`, with the unit in brackets where it is known."""
    width = int(np.prod(shape, dtype=np.int64))
    letters, unit = _known_components(key)
    if key.endswith("gripper_qpos"):
        unit = gripper_unit
    elif key.endswith("gripper_qvel") and gripper_unit:
        unit = f"{gripper_unit}/s"
    suffixes = [".".join(map(str, suffix)) for suffix in np.ndindex(*shape)]
    if letters and len(letters) == width:
        suffixes = list(letters)
    end = f" [{unit}]" if unit else ""
    return [f"{key}.{suffix}{end}" if suffix else f"{key}{end}" for suffix in suffixes]


def override_names(setting: str, names: Sequence[str], keys: Sequence[str], own: Sequence[str]) -> tuple[str, ...]:
    """The `names` that the user set for the columns of the arrays `keys`, or their `own` if none are set."""
    if names and len(names) != len(own):
        raise UserError(f"{setting}= has {len(names)} names, but {', '.join(keys)} has {len(own)} columns.")
    return tuple(names or own)


def _known_components(key: str) -> tuple[str, str]:
    for ending in sorted(COMPONENTS, key=len, reverse=True):
        if key == ending or key.endswith(f"_{ending}"):
            return COMPONENTS[ending]
    return "", ""
