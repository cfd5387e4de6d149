"""Recognising from their names which columns of actions and state are positions and rotations of a gripper.

    [ARM_]eef_delta_pos.x [0.05 m]      1 means 0.05 m further along x        [ARM_]eef_pos.x [m]          absolute
    [ARM_]eef_delta_axis_angle.x [0.5 rad]                                    [ARM_]eef_axis_angle.x [rad]
                                                    [ARM_]eef_rot_axis_angle.x, eef_rot6d.xx [1], eef_quat.x [1], ...

These are the names used by our environments, imported robosuite data and UMI. The default unit is m, rad or 1.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Sequence

import numpy as np

from pixio_robot.data.actions.rotations import (
    AXIS_ANGLE,
    MATRIX,
    QUATERNION,
    QUATERNION_WXYZ,
    QUATERNIONS,
    ROT6D,
    ROT6D_ROWS,
    ROTATION_SIZES,
    matrices_from_rotations,
    rotations_from_matrices,
    rotations_from_trajectory,
)
from pixio_robot.errors import UserError

POSITION = "pos"
_AXES = {
    POSITION: "xyz",
    AXIS_ANGLE: "xyz",
    QUATERNION: "xyzw",
    QUATERNION_WXYZ: "wxyz",
    ROT6D: [f"{column}{axis}" for column in "xy" for axis in "xyz"],
    ROT6D_ROWS: [f"{axis}{column}" for axis in "xy" for column in "xyz"],
    MATRIX: [f"{axis}{column}" for axis in "xyz" for column in "xyz"],
}
"""The names of the columns of each form."""
_FORMS = {"rot_axis_angle": AXIS_ANGLE, "quat_site": QUATERNION} | {form: form for form in (POSITION, *ROTATION_SIZES)}
"""Word in a column name -> form. rot_axis_angle: UMI's name; quat_site: of the point that robosuite controls."""
_WORDS = "|".join(sorted(_FORMS, key=len, reverse=True))
_STEM = re.compile(rf"(?P<arm>.*?)eef_(?P<delta>delta_)?(?P<what>{_WORDS})")
_NAME = re.compile(r"(?P<stem>.+)\.(?P<axis>\w+)( \[(?P<scale>[\d.]+(?:e-?\d+)? )?(?P<unit>\w+)\])?")
_UNITS = {POSITION: "m", AXIS_ANGLE: "rad"}
"""Forms with a unit; other rotations have none, or 1."""
_ROTATIONS = r"rot(ation)?|orn|orientation|quat(ernion)?|axis_?angle|euler|rotvec|rpy|roll|pitch|yaw|rot6d"
_MAX_SUGGESTED = 4
"""Maximum number of other columns that a suggestion spells out."""
_POSITIONS = r"poses?|pos|position|xyz|eef|tcp|ee"
_OTHERS = r"joints?|grippers?|fingers?|vel|velocity|force|torque|effort|ft|wrench|base"
"""Words that mark a column as not a gripper pose, whatever else is in its name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PoseColumns:
    """Adjacent columns, starting with number `first`, that form one position or rotation."""

    arm: str
    what: str
    """`pos` or the form of a rotation (`rotations.ROTATION_SIZES`), as spelled in the column names (`_FORMS`)."""
    delta: bool
    first: int
    scale: tuple[float, ...]
    """The size of one unit of each value in m, rad or 1."""

    @property
    def stop(self) -> int:
        return self.first + len(self.scale)

    @property
    def form(self) -> str:
        return _FORMS[self.what]

    @property
    def is_position(self) -> bool:
        return self.what == POSITION

    @property
    def stem(self) -> str:
        return f"{self.arm}eef_{'delta_' if self.delta else ''}{self.what}"

    def read(self, columns: np.ndarray) -> np.ndarray:
        """columns (n, all) -> positions (n, 3) in m, or rotation matrices (n, 3, 3)."""
        values = columns[:, self.first : self.stop].astype(np.float64) * self.scale
        return values if self.is_position else matrices_from_rotations(values, self.form)

    def write(self, values: np.ndarray) -> np.ndarray:
        """The inverse of `read`, for these columns only. Absolute rotations are those of a trajectory, step by step."""
        if self.is_position:
            return values / self.scale
        represent = rotations_from_matrices if self.delta else rotations_from_trajectory
        return represent(values, self.form) / self.scale

    def names(self) -> list[str]:
        return [
            f"{self.stem}.{axis} [{self._unit(scale)}]"
            for axis, scale in zip(_AXES[self.form], self.scale, strict=True)
        ]

    def described(self) -> str:
        units = dict.fromkeys(map(self._unit, self.scale))
        return f"{self.stem} [{', '.join(units)}]"

    def _unit(self, scale: float) -> str:
        unit = _UNITS.get(self.form, "1")
        return unit if scale == 1 else f"{scale:g} {unit}"


def find_pose_columns(names: Sequence[str]) -> list[PoseColumns]:
    """The positions and rotations among columns with these names; others, such as grippers, are not included.

    Raises UserError if a position or rotation lacks columns or has a unit other than m or rad.
    """
    blocks: list[PoseColumns] = []
    column = 0
    while column < len(names):
        match = _NAME.fullmatch(names[column])
        stem = _STEM.fullmatch(match["stem"]) if match else None
        if match is None or stem is None:
            column += 1
            continue
        axes = _AXES[_FORMS[stem["what"]]]
        parts = [_NAME.fullmatch(name) for name in names[column : column + len(axes)]]
        if [part and (part["stem"], part["axis"]) for part in parts] != [(match["stem"], axis) for axis in axes]:
            other = " (w, x, y, z is named eef_quat_wxyz.)" if match["axis"] == "w" and axes == "xyzw" else ""
            raise UserError(
                f"From {names[column]!r} on, the columns are not {match['stem']}.{', .'.join(axes)}.{other}"
            )
        unit = _UNITS.get(_FORMS[stem["what"]], "1")
        for part in parts:
            if part and part["unit"] not in (None, unit):
                raise UserError(f"The column {part[0]!r} must be in {unit}, not in {part['unit']}.")
        scale = tuple(float(part["scale"] or 1) for part in parts if part)
        blocks.append(
            PoseColumns(arm=stem["arm"], what=stem["what"], delta=bool(stem["delta"]), first=column, scale=scale)
        )
        column += len(axes)
    return blocks


def find_rotations(names: Sequence[str], forms: Collection[str]) -> list[PoseColumns]:
    """The rotations in these forms; none where names resemble a pose but are none: only their author knows what they
    mean."""
    try:
        return [block for block in find_pose_columns(names) if block.form in forms]
    except UserError:
        return []


def find_quaternion_columns(names: Sequence[str]) -> list[int]:
    """The number of the first column of each quaternion."""
    return [block.first for block in find_rotations(names, QUATERNIONS)]


def replace_columns[Column](
    columns: list[Column], before: Sequence[PoseColumns], parts: Sequence[list[Column]]
) -> list[Column]:
    """`columns` with the columns of each block replaced."""
    replaced, done = [], 0
    for block, part in zip(before, parts, strict=True):
        replaced += [*columns[done : block.first], *part]
        done = block.stop
    return replaced + columns[done:]


def columns_without_pose(names: Sequence[str], blocks: Sequence[PoseColumns]) -> list[str]:
    """The names of the columns that belong to no block."""
    inside = {column for block in blocks for column in range(block.first, block.stop)}
    return [name for column, name in enumerate(names) if column not in inside]


def find_possible_poses(names: Sequence[str], rotations_only: bool = False) -> list[str]:
    """The columns (of those in no block) whose names suggest a position or rotation of a gripper in an unknown form."""
    words = _ROTATIONS if rotations_only else f"{_ROTATIONS}|{_POSITIONS}"
    return [name for name in names if _contains_word(name, words) and not _contains_word(name, _OTHERS)]


def may_belong_to_gripper(name: str, arms: Collection[str]) -> bool:
    """Whether a column that looks like a pose may be the gripper's: it names the gripper or one of `arms`, or no body
    (`rot.x`, `left_tcp.x`, but not `head.yaw`)."""
    first = re.split(r"[._\d]", name.lower(), maxsplit=1)[0]
    says_none = re.fullmatch(f"{_ROTATIONS}|{_POSITIONS}", first) is not None
    return says_none or _contains_word(name, "eef|tcp|ee") or any(arm and name.startswith(arm) for arm in arms)


def _contains_word(name: str, words: str) -> bool:
    """Whether the name without its unit contains one of `words` as a separate word, ignoring trailing digits."""
    match = re.search(rf"(^|[_.\d])({words})\d*($|[_.])", name.split(" [")[0].lower())
    # An arm's forearm_roll is a joint.
    return bool(match) and not (match[2] in ("roll", "pitch", "yaw") and match[1] == "_")


def suggest_names(count: int) -> str:
    """A guess at the names of `count` columns of a pose and a gripper, as one would type them."""
    turn = {8: QUATERNION, 10: ROT6D, 13: MATRIX}.get(count, AXIS_ANGLE)
    names = [
        name
        for what in ((POSITION, turn) if count >= 6 else (POSITION,))
        for name in PoseColumns(arm="", what=what, delta=False, first=0, scale=(1.0,) * len(_AXES[what])).names()
    ]
    left = count - len(names)
    more = ["gripper"] if left == 1 else [f"other.{number}" for number in range(left)]
    return ",".join([*names, *more]) if len(more) <= _MAX_SUGGESTED else ",".join([*names, "..."])
