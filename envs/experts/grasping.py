"""The moves from which the programs of robosuite's experts are built.

A grip is the wanted orientation of the grip site (3, 3): the hand points along its z axis, the fingers close along x.
An object is the name of its position, such as `cube_pos`.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from envs.experts.motions import DELTA_POS, DELTA_ROT, OPEN, rotation_vector
from envs.experts.scripted import Motions, World


def up(height: float) -> np.ndarray:
    """The vector (3,) of that height, metres."""
    return np.array((0.0, 0.0, height))


def yaw_of(rotation: np.ndarray) -> float:
    """Angle of a rotation's x axis in the horizontal plane, radians."""
    return float(np.arctan2(rotation[1, 0], rotation[0, 0]))


def nearest_turn(angle: float, period: float) -> float:
    """The angle modulo the period that is nearest to zero."""
    return (angle + period / 2) % period - period / 2


def grip_along(fingers: np.ndarray, pointing: np.ndarray) -> np.ndarray:
    """The grip whose fingers close along a unit vector (3,), orthogonal to the one along which the hand points."""
    return np.stack([fingers, np.cross(pointing, fingers), pointing], axis=1)


def grip_down(yaw: float) -> np.ndarray:
    """The grip of a hand that points straight down, with the yaw of the finger axis in radians."""
    return grip_along(np.array((np.cos(yaw), np.sin(yaw), 0.0)), np.array((0.0, 0.0, -1.0)))


def turn_to(world: World, grip: np.ndarray) -> np.ndarray:
    """The rotation vector (3,), in radians, that is left to the grip."""
    return rotation_vector(grip @ world["eef_mat"].T)


def aside(world: World, thing: str) -> float:
    """Horizontal distance between the object and the grip site, metres."""
    return float(np.linalg.norm((world[thing] - world["eef_pos"])[:2]))


def slipped(world: World, thing: str) -> bool:
    """Whether the object is no longer between the fingers."""
    return bool(np.linalg.norm(world[thing] - world["eef_pos"]) > 0.05)


def motion(way: np.ndarray, turn: np.ndarray, gripper: float) -> np.ndarray:
    """The motion that covers a distance (3,) in metres and a rotation vector (3,) in radians."""
    # The controller covers only a fraction of each delta in one step: request more than the remaining distance.
    return np.clip(np.concatenate([1.6 * way / DELTA_POS, 1.2 * turn / DELTA_ROT, [gripper]]), -1, 1).astype(np.float32)


def reach(world: World, goal: np.ndarray, gripper: float, grip: np.ndarray) -> np.ndarray:
    """The motion of the grip site to the goal (3,) in metres."""
    return motion(goal - world["eef_pos"], turn_to(world, grip), gripper)


def hover(world: World, thing: str, grip: np.ndarray, heights: tuple[float, float]) -> np.ndarray:
    """The motion to a point above the object: on the way there at the first height (m) above its centre, to stay clear
    of its edges, and there at the second."""
    height = heights[0] if aside(world, thing) > 0.04 else heights[1]
    return reach(world, world[thing] + up(height), OPEN, grip)


def descend(
    world: World, thing: str, grip: np.ndarray, within: float, patience: float = np.inf
) -> Generator[np.ndarray, None, bool]:
    """Lower the open hand onto the object until it is `within` metres above its centre, or for `patience` steps.

    Returns whether it is down: it stops early when the object is no longer below it.
    """
    while True:
        yield reach(world, world[thing], OPEN, grip)
        patience -= 1
        if aside(world, thing) > 0.03:
            return False
        if world["eef_pos"][2] - world[thing][2] < within or patience <= 0:
            return True


def approach(
    world: World, thing: str, grip: np.ndarray, heights: tuple[float, float], patience: float = np.inf
) -> Motions:
    """Hover over the object (see `hover`) and descend onto it (see `descend`), again whenever it moves aside."""
    down = False
    while not down:
        while aside(world, thing) >= 0.012 or np.linalg.norm(turn_to(world, grip)) >= 0.12:
            yield hover(world, thing, grip, heights)
        down = yield from descend(world, thing, grip, 0.008, patience)


def release(world: World, grip: np.ndarray, wait: int, rise: int, height: float) -> Motions:
    """Open the gripper for `wait` steps and then rise for `rise` steps, with `height` metres ahead in each of them."""
    for step in range(wait + rise):
        yield reach(world, world["eef_pos"] if step < wait else world["eef_pos"] + up(height), OPEN, grip)
