"""Merging the actions of `stride` steps into one, by what the names of their columns say that they are.

Deltas are composed, so that the merged one leads where all of them led: positions are added, rotations multiplied in
their order, whatever their form. The sum of axis-angle vectors would only be near that: two turns of 0.5 rad about
different axes miss by up to 0.12 rad.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence

import numpy as np

from pixio_robot.data.actions.pose_columns import POSITION, PoseColumns, find_pose_columns
from pixio_robot.data.actions.rotations import AXIS_ANGLE, apply_deltas
from pixio_robot.errors import UserError, unknown_name

SUM, MEAN = "sum", "mean"
MERGE_METHODS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "first": lambda block: block[0],
    "last": lambda block: block[-1],
    SUM: lambda block: block.sum(0),
    MEAN: lambda block: block.mean(0),
}
"""How columns whose meaning is unknown are merged: `last` and `first` are for absolute targets; `sum` for deltas in
physical units; `mean` for deltas normalised to [-1, 1], if the controller's range is also multiplied by the stride."""
_GRIPPER = "gripper"
"""Columns with this in their name are open/close commands, which must not be summed or averaged even among deltas."""
_DELTA = re.compile(
    r"(?P<stem>\w*_delta(_pos)?(\.\w+)?)(?P<unit> \[(?P<scale>[\d.]+(?:e-?\d+)? )?(?P<word>[a-zA-Z]\w*)\])?"
)
"""A delta that is no part of a pose in space, such as our environments' and robomimic's `joint1_delta [0.05 rad]`."""


@dataclasses.dataclass(frozen=True)
class ActionMerge:
    names: tuple[str, ...]
    """Of the merged actions: `mean` multiplies the units of deltas by the stride."""
    merge: Callable[[np.ndarray], np.ndarray]
    """actions (n, a) -> float64 (ceil(n / stride), a). The last one may be of fewer steps."""
    notes: tuple[str, ...]


def plan_merge(names: Sequence[str], stride: int, way: str) -> ActionMerge:
    """How the actions of every `stride` steps are merged, as MERGE_METHODS[way] says.

    Raises UserError for an unknown way, and for one that is wrong for columns whose meaning is known.
    """
    if way not in MERGE_METHODS:
        if not way:
            raise UserError(
                f"stride={stride} merges {stride} actions into one: choose how with actions={'|'.join(MERGE_METHODS)} "
                "(last for absolute targets, sum for deltas)."
            )
        raise unknown_name("way of merging actions", way, MERGE_METHODS)
    poses, doubts = _find_poses(names)
    inside = {column for block in poses for column in range(block.first, block.stop)}
    grippers = [column for column, name in enumerate(names) if column not in inside and _GRIPPER in name]
    rest = [column for column in range(len(names)) if column not in inside and column not in grippers]
    single = {column: match for column in rest if (match := _DELTA.fullmatch(names[column]))}
    unknown = [names[column] for column in rest if column not in single]
    turned = [block for block in poses if block.delta]
    _check_method(way, [block.stem for block in poses if not block.delta], turned, list(single.values()), names)
    widened = [_widen_unit(block, stride) if way == MEAN else block for block in turned]

    def merge(actions: np.ndarray) -> np.ndarray:
        exact = actions.astype(np.float64)
        groups = [exact[start : start + stride] for start in range(0, len(exact), stride)]
        merged = np.stack([MERGE_METHODS[way](group) for group in groups])
        if way not in (SUM, MEAN):
            return merged
        merged[:, grippers] = [group[-1, grippers] for group in groups]
        columns = list(single)
        # The last steps may be fewer than the stride, and their unit is multiplied by it like everyone's.
        merged[:, columns] = [group[:, columns].sum(0) / (stride if way == MEAN else 1) for group in groups]
        for block, after in zip(turned, widened, strict=True):
            merged[:, block.first : block.stop] = after.write(_compose_deltas(block.read(exact), stride))
        return merged

    renamed = list(names)
    if way == MEAN:
        for before, after in zip(turned, widened, strict=True):
            if before != after:
                renamed[before.first : before.stop] = after.names()
        for column, match in single.items():
            scale = float(match["scale"] or 1) * stride
            renamed[column] = f"{match['stem']} [{'' if scale == 1 else f'{scale:g} '}{match['word']}]"
    scaled = [names[c] for b in turned if _has_unit(b) and set(b.scale) != {1.0} for c in range(b.first, b.stop)]
    scaled += [names[column] for column, match in single.items() if match["scale"]]
    notes = _merge_notes(way, stride, scaled, [name for name in renamed if name not in names], unknown)
    return ActionMerge(tuple(renamed), merge, (*doubts, *notes))


def _find_poses(names: Sequence[str]) -> tuple[list[PoseColumns], list[str]]:
    """The positions and rotations, and why none could be told where a name only starts like one."""
    try:
        return find_pose_columns(names), []
    except UserError as error:
        return [], [f"not taken for poses: {error}"]


def _check_method(
    way: str,
    absolute: Sequence[str],
    turned: Sequence[PoseColumns],
    single: Sequence[re.Match[str]],
    names: Sequence[str],
) -> None:
    deltas = [*(block.stem for block in turned), *(match["stem"] for match in single)]
    adds = way in (SUM, MEAN)
    if absolute and deltas:
        raise UserError(
            f"The actions are both absolute ({', '.join(absolute)}) and deltas ({', '.join(deltas)}), and no actions= "
            "is right for both: make them one kind with `data actions` to=absolute or to=delta first."
        )
    if adds and absolute:
        raise UserError(
            f"actions={way} is for deltas, but these are absolute: {', '.join(absolute)}. Use actions=last."
        )
    if not adds and deltas:
        raise UserError(
            f"actions={way} would lose the motion of the other steps, since these are deltas: {', '.join(deltas)}. "
            "Use actions=sum, or actions=mean, which multiplies their unit by the stride instead of their values."
        )
    silent = [
        *(block.stem for block in turned if _has_unit(block) and not names[block.first].endswith("]")),
        *(match["stem"] for match in single if not match["unit"]),
    ]
    if way == MEAN and silent:
        raise UserError(
            f"actions=mean multiplies the unit of deltas by the stride, but the names of these have none: "
            f"{', '.join(silent)}. Name them with `data rename`, for example 'eef_delta_pos.x [0.05 m]', where a "
            "value of 1 is 0.05 m."
        )


def _has_unit(block: PoseColumns) -> bool:
    """Whether the unit can be chosen. The values of other rotations are what they are: they are composed only."""
    return block.form in (POSITION, AXIS_ANGLE)


def _widen_unit(block: PoseColumns, stride: int) -> PoseColumns:
    scale = tuple(one * stride for one in block.scale)
    return dataclasses.replace(block, scale=scale) if _has_unit(block) else block


def _compose_deltas(deltas: np.ndarray, stride: int) -> np.ndarray:
    """Positions (n, 3) or rotation matrices (n, 3, 3) of deltas -> those of every `stride` steps together."""
    still = np.zeros(3) if deltas.ndim == 2 else np.eye(3)
    fill = np.broadcast_to(still, (-len(deltas) % stride, *still.shape))
    steps = np.concatenate([deltas, fill]).reshape(-1, stride, *still.shape)
    merged = steps[:, 0]
    for step in range(1, stride):
        merged = apply_deltas(merged, steps[:, step])
    return merged


def _merge_notes(
    way: str, stride: int, scaled: Sequence[str], renamed: Sequence[str], unknown: Sequence[str]
) -> list[str]:
    notes = []
    if renamed:
        notes.append(f"a value of 1 means {stride} times as much, as the controller has to know: {', '.join(renamed)}")
    if way == SUM and scaled:
        notes.append(
            "sums may exceed 1, to which a controller clips them (actions=mean multiplies the unit instead): "
            f"{', '.join(scaled)}"
        )
    if unknown:
        which = "deltas" if way in (SUM, MEAN) else "absolute targets"
        notes.append(f"actions={way} is right only for {which}, which these names do not say: {', '.join(unknown)}")
    return notes
