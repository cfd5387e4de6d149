"""What the controllers of a robomimic environment take of actions that its demonstrations say in another way.

`pixio-robot data actions` gives a store's actions other rotations or another unit. Its environment's controllers still
take axis-angle, and deltas as shares of their largest (`output_max`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from pixio_robot.data.action_forms import Restated
from pixio_robot.data.actions import AXIS_ANGLE
from pixio_robot.data.pose_columns import POSITION, Block, blocks
from pixio_robot.errors import UserError


@dataclasses.dataclass(frozen=True)
class Arm:
    """What one arm's operational space controller takes. scale: m, then rad, of 1; three numbers where it takes no
    rotation."""

    delta: bool
    scale: tuple[float, ...]


def arms_of(env: Any) -> list[Arm]:
    """Of robosuite's environment, in the order of its action's numbers; none where they are no poses."""
    found = []
    for robot in env.robots:
        for name in robot.arms:
            controller = robot.part_controllers[name]
            if not str(controller.name).startswith("OSC"):
                return []
            delta, width = controller.input_type == "delta", 6 if controller.use_ori else 3
            largest = np.broadcast_to(controller.output_max, width) if delta else np.ones(width)
            found.append(Arm(delta, tuple(largest.tolist())))
    return found


def taken(names: Sequence[str], arms: Sequence[Arm]) -> Restated:
    """From actions called `names` to those that the arms take: as they are, where nothing is known of them.

    Raises UserError for deltas where the controllers take places, and the other way round.
    """
    try:
        found = blocks(names)
    except UserError:  # names that begin like a pose's and are none
        return Restated([])
    order = list(dict.fromkeys(block.arm for block in found))
    if len(order) != len(arms):
        return Restated([])
    return Restated([(block, _taken(block, names, arms[order.index(block.arm)])) for block in found])


def _taken(block: Block, names: Sequence[str], arm: Arm) -> Block:
    """The block as the arm's controller wants it: the same one where nothing is to be changed."""
    if block.delta != arm.delta:
        ways = {True: "deltas", False: "absolute poses"}
        raise UserError(
            f"The actions {block.described()} are {ways[block.delta]}, but the environment's controller takes "
            f"{ways[arm.delta]}: convert them by `pixio-robot data actions STORE to=...`, and train on those."
        )
    scale = arm.scale[:3] if block.is_position else arm.scale[3:]
    if not scale:
        raise UserError(f"The actions {block.described()} turn a gripper that the environment's controller only moves.")
    # Names without a unit do not say how much a number is, so that it is the controller's own.
    silent = block.delta and not names[block.first].endswith("]")
    if block.form in (POSITION, AXIS_ANGLE) and (silent or np.allclose(block.scale, scale)):
        return block
    return dataclasses.replace(block, what=POSITION if block.is_position else AXIS_ANGLE, scale=scale)
