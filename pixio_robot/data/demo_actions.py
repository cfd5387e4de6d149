"""A store's actions said in another way: relative to the pose of their step or absolute, and with other rotations.

What the columns mean is read from their names, those of our environments and of imported robosuite data:

    [ARM_]eef_delta_pos.x [0.05 m]      1 means 0.05 m further along x        [ARM_]eef_pos.x [m]          a place
    [ARM_]eef_delta_axis_angle.x [0.5 rad]                                    [ARM_]eef_axis_angle.x [rad]
                                                                   [ARM_]eef_rot6d.xx [1], eef_quat.x [1], ...

The pose that a delta starts from is that of the same step's state, which names it in the same way.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from pixio_robot.data.actions import (
    AXIS_ANGLE,
    MATRIX,
    QUATERNION,
    ROT6D,
    ROT6D_ROWS,
    WIDTHS,
    between,
    matrices,
    moved,
    rotations,
)
from pixio_robot.data.demo_reshape import Edit
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.types import DemoSpec, Episode

DELTA, ABSOLUTE = "delta", "absolute"
_AXES = {
    "pos": "xyz",
    AXIS_ANGLE: "xyz",
    QUATERNION: "xyzw",
    ROT6D: [f"{column}{axis}" for column in "xy" for axis in "xyz"],
    ROT6D_ROWS: [f"{axis}{column}" for axis in "xy" for column in "xyz"],
    MATRIX: [f"{axis}{column}" for axis in "xyz" for column in "xyz"],
}
"""What the columns of each are called."""
_STEM = re.compile(r"(?P<arm>.*?)eef_(?P<delta>delta_)?(?P<what>pos|axis_angle|quat(_site)?|rot6d_rows|rot6d|matrix)")
_NAME = re.compile(r"(?P<stem>.+)\.(?P<axis>\w+) \[(?P<scale>[\d.]+ )?(?P<unit>\w+)\]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    """Columns that are one position or rotation, from number `first` on."""

    arm: str
    what: str
    """`pos`, or the form of a rotation (`actions.WIDTHS`; quat_site: of the point that robosuite controls)."""
    delta: bool
    first: int
    scale: tuple[float, ...]
    """How many m or rad (or 1) one unit of each number is."""

    @property
    def stop(self) -> int:
        return self.first + len(self.scale)

    @property
    def form(self) -> str:
        return self.what.removesuffix("_site")

    def read(self, columns: np.ndarray) -> np.ndarray:
        """columns (n, all) -> positions (n, 3) in m, or rotation matrices (n, 3, 3)."""
        values = columns[:, self.first : self.stop].astype(np.float64) * self.scale
        return values if self.what == "pos" else matrices(values, self.form)

    def write(self, values: np.ndarray) -> np.ndarray:
        """The reverse, of these columns alone."""
        return (values if self.what == "pos" else rotations(values, self.form)) / self.scale

    def names(self) -> list[str]:
        unit = {"pos": "m", AXIS_ANGLE: "rad"}.get(self.what, "1")
        stem = f"{self.arm}eef_{'delta_' if self.delta else ''}{self.what}"
        return [
            f"{stem}.{axis} [{'' if scale == 1 else f'{scale:g} '}{unit}]"
            for axis, scale in zip(_AXES[self.form], self.scale, strict=True)
        ]


def blocks(names: Sequence[str]) -> list[Block]:
    """The positions and rotations among columns of those names; the others, such as grippers, are in none.

    Raises UserError where a position or rotation misses columns.
    """
    found: list[Block] = []
    place = 0
    while place < len(names):
        match = _NAME.fullmatch(names[place])
        stem = _STEM.fullmatch(match["stem"]) if match else None
        if match is None or stem is None:
            place += 1
            continue
        axes = _AXES[stem["what"].removesuffix("_site")]
        parts = [_NAME.fullmatch(name) for name in names[place : place + len(axes)]]
        if [part and (part["stem"], part["axis"]) for part in parts] != [(match["stem"], axis) for axis in axes]:
            raise UserError(f"From {names[place]!r} on, the columns are not {match['stem']}.{', .'.join(axes)}.")
        scale = tuple(float(part["scale"] or 1) for part in parts if part)
        found.append(Block(arm=stem["arm"], what=stem["what"], delta=bool(stem["delta"]), first=place, scale=scale))
        place += len(axes)
    return found


def converted(
    spec: DemoSpec, to: str = "", rotation: str = "", scale_position: float = 0.05, scale_rotation: float = 0.5
) -> Edit:
    """Actions that are `to` (delta or absolute; as they are without), their rotations in the form `rotation`
    (`actions.WIDTHS`; as they are without).

    `scale_position` [m] and `scale_rotation` [rad] are what a new delta of 1 stands for; rotations in other forms than
    axis_angle have no scale. Raises UserError when the spec does not say what its actions are, or says just this.
    """
    if to not in ("", DELTA, ABSOLUTE):
        raise unknown_name("way of giving actions", to, (DELTA, ABSOLUTE))
    if rotation and rotation not in WIDTHS:
        raise unknown_name("form of rotations", rotation, WIDTHS)
    if min(scale_position, scale_rotation) <= 0:
        raise UserError("scale_position and scale_rotation must be above 0: the m and rad of a delta of 1.")
    before = blocks(spec.action_names)
    if not before:
        raise UserError(f"The DemoSpec names no action eef_pos.x or eef_delta_pos.x: {', '.join(spec.action_names)}.")
    after = [_wanted(block, to, rotation, scale_position, scale_rotation) for block in before]
    if before == after:
        raise UserError(f"The actions are that already: {', '.join(spec.action_names)}.")
    # A delta starts from the pose of its step, whichever way it is converted.
    starts = [_start(spec, one) if one.delta != other.delta else None for one, other in zip(before, after, strict=True)]

    def change(episode: Episode) -> Episode:
        parts = [
            other.write(_turned(one.read(episode.actions), one, other, start and start.read(episode.state)))
            for one, other, start in zip(before, after, starts, strict=True)
        ]
        columns = _woven(list(episode.actions.T), before, [list(part.T) for part in parts])
        return dataclasses.replace(episode, actions=np.stack(columns, 1).astype(np.float32))

    names = _woven(list(spec.action_names), before, [block.names() for block in after])
    return Edit(
        dataclasses.replace(spec, action_names=tuple(names), controller=_controller(spec.controller, after)), change
    )


def _wanted(block: Block, to: str, rotation: str, scale_position: float, scale_rotation: float) -> Block:
    delta = to == DELTA if to else block.delta
    what = block.what if block.what == "pos" or not rotation else rotation
    if (what, delta) == (block.what, block.delta):
        return block
    scale = {"pos": scale_position, AXIS_ANGLE: scale_rotation}.get(what, 1.0) if delta else 1.0
    width = WIDTHS.get(what.removesuffix("_site"), 3)
    return dataclasses.replace(block, what=what, delta=delta, scale=(scale,) * width)


def _turned(values: np.ndarray, before: Block, after: Block, start: np.ndarray | None) -> np.ndarray:
    if start is None:
        return values
    return moved(start, values) if before.delta else between(start, values)


def _woven[Column](columns: list[Column], before: Sequence[Block], parts: Sequence[list[Column]]) -> list[Column]:
    """`columns` with those of each block replaced."""
    found, place = [], 0
    for block, part in zip(before, parts, strict=True):
        found += [*columns[place : block.first], *part]
        place = block.stop
    return found + columns[place:]


def _start(spec: DemoSpec, action: Block) -> Block:
    """Where the state says what the delta `action` starts from."""
    wanted = ("pos",) if action.what == "pos" else (ROT6D, f"{QUATERNION}_site", AXIS_ANGLE, ROT6D_ROWS, MATRIX)
    if action.what != "pos" and spec.simulator != "robosuite":
        # robosuite's eef_quat is that of the hand, which is turned against the point that its controllers move.
        wanted = (*wanted, QUATERNION)
    there = [block for block in blocks(spec.state_names) if not block.delta]
    arms = dict.fromkeys(block.arm for block in there)
    arm = action.arm.replace("arm", "robot") if action.arm not in arms else action.arm
    if arm not in arms and len(arms) == 1:
        arm = next(iter(arms))
    for what in wanted:
        for block in there:
            if (block.arm, block.what) == (arm, what):
                return block
    names = ", ".join(f"eef_{what}" for what in wanted)
    hint = ""
    if spec.simulator == "robosuite" and any(block.what == QUATERNION for block in there):
        hint = (
            " Its eef_quat is that of the hand, which is turned against what the controller moves: import with "
            "state=robot0_eef_pos,robot0_eef_quat_site,robot0_gripper_qpos."
        )
    raise UserError(
        f"The state does not say where the {action.arm}gripper is, as one of {names}: {', '.join(spec.state_names)}."
        + hint
    )


def _controller(name: str, actions: Sequence[Block]) -> str:
    """`name` with its word delta or absolute set right. Raises UserError for poses that are not in the world."""
    if "base" in name:
        raise UserError(f"The actions of controller {name!r} are not poses in the world, as those of the state are.")
    ways = {DELTA if block.delta else ABSOLUTE for block in actions}
    if len(ways) > 1:
        return name
    way = ways.pop()
    return (
        re.sub(rf"\b({DELTA}|{ABSOLUTE})\b", way, name)
        if re.search(rf"\b({DELTA}|{ABSOLUTE})\b", name)
        else f"{name} {way}"
    )
