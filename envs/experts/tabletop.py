"""Experts for the tabletop tasks; the gripper does not rotate, so they control positions only."""

from __future__ import annotations

import numpy as np

from envs.experts.motions import CLOSE, OPEN
from envs.experts.scripted import Motions, World

DELTA_POS = 0.02
"""Metres per step for an action of 1."""


def _move(world: World, goal: np.ndarray, gripper: float) -> np.ndarray:
    """The motion of the gripper to the goal (3,) in metres."""
    return np.append(np.clip((goal - world["eef_pos"]) / DELTA_POS, -1, 1), gripper).astype(np.float32)


def reach_ball(world: World) -> Motions:
    """Moves straight to the target."""
    while True:
        yield _move(world, world["target_pos"], CLOSE)


def push_cube(world: World) -> Motions:
    """Moves behind the cube as seen from the target, descends, and pushes until the cube slides off."""
    down = False
    while not down:
        here, behind = world["eef_pos"], world["cube_pos"][:2] - 0.055 * _push_direction(world)
        there = np.linalg.norm(here[:2] - behind) < 0.008
        # Up first, then over the place, then down.
        x, y = behind if there or here[2] > 0.07 else here[:2]
        yield _move(world, np.array((x, y, 0.02 if there else 0.09)), CLOSE)
        down = there and here[2] < 0.03
    while abs(_lateral_error(world)) <= 0.02:
        # Push through the cube's centre, and correct the fingers' sideways offset.
        along = _push_direction(world)
        x, y = world["eef_pos"][:2] + 0.012 * along - 1.2 * (_perpendicular(along) * _lateral_error(world))
        yield _move(world, np.array((x, y, 0.02)), CLOSE)


def _push_direction(world: World) -> np.ndarray:
    """Horizontally from the cube to the target: a unit vector (2,)."""
    left = (world["target_pos"] - world["cube_pos"])[:2]
    return left / (np.linalg.norm(left) + 1e-9)


def _perpendicular(direction: np.ndarray) -> np.ndarray:
    return np.array((-direction[1], direction[0]))


def _lateral_error(world: World) -> float:
    """How far the gripper is to the left of the line from the cube to the target, metres."""
    return float((world["eef_pos"] - world["cube_pos"])[:2] @ _perpendicular(_push_direction(world)))


def pick_cube(world: World) -> Motions:
    """Moves above the cube, descends, closes the gripper, and lifts until the cube is lost."""
    while (distance := _horizontal_distance(world)) >= 0.006:
        clear = world["cube_pos"][2] + 0.06
        # Up first where the gripper is beside the cube.
        low = world["eef_pos"][2] < clear - 0.02 and distance > 0.02
        x, y = world["eef_pos" if low else "cube_pos"][:2]
        yield _move(world, np.array((x, y, clear)), OPEN)
    down = False
    while not down:
        yield _move(world, world["cube_pos"], OPEN)
        if _horizontal_distance(world) > 0.015:
            return
        down = world["eef_pos"][2] - world["cube_pos"][2] < 0.006
    for _ in range(6):
        yield _move(world, world["eef_pos"], CLOSE)
    held = True
    while held:
        x, y = world["eef_pos"][:2]
        yield _move(world, np.array((x, y, 0.16)), CLOSE)
        held = np.linalg.norm(world["cube_pos"] - world["eef_pos"]) <= 0.035


def _horizontal_distance(world: World) -> float:
    """Horizontal distance between cube and gripper, metres."""
    return float(np.linalg.norm((world["cube_pos"] - world["eef_pos"])[:2]))
