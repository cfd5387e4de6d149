"""The moves from which the programs of robosuite's experts are built.

A grip is the wanted orientation of the grip site (3, 3): the hand points along its z axis, the fingers close along x.
An object is the name of its position, such as `cube_pos`.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from envs.experts.motions import DELTA_POS, DELTA_ROT, OPEN, rotation_vector
from envs.experts.scripted import Motions, World


def upward(height: float) -> np.ndarray:
    """The vector (3,) of that height, metres."""
    return np.array((0.0, 0.0, height))


def get_yaw(rotation: np.ndarray) -> float:
    """Angle of a rotation's x axis in the horizontal plane, radians."""
    return float(np.arctan2(rotation[1, 0], rotation[0, 0]))


def wrap_angle(angle: float, period: float) -> float:
    """The angle modulo the period that is nearest to zero."""
    return (angle + period / 2) % period - period / 2


def grip_along(fingers: np.ndarray, pointing: np.ndarray) -> np.ndarray:
    """The grip whose fingers close along a unit vector (3,), orthogonal to the one along which the hand points."""
    return np.stack([fingers, np.cross(pointing, fingers), pointing], axis=1)


def grip_down(yaw: float) -> np.ndarray:
    """The grip of a hand that points straight down, with the yaw of the finger axis in radians."""
    return grip_along(np.array((np.cos(yaw), np.sin(yaw), 0.0)), np.array((0.0, 0.0, -1.0)))


def rotation_error(world: World, grip: np.ndarray) -> np.ndarray:
    """The rotation vector (3,), in radians, that is left to the grip."""
    return rotation_vector(grip @ world["eef_mat"].T)


def horizontal_distance(world: World, object_name: str) -> float:
    """Horizontal distance between the object and the grip site, metres."""
    return float(np.linalg.norm((world[object_name] - world["eef_pos"])[:2]))


def has_slipped(world: World, object_name: str) -> bool:
    """Whether the object is no longer between the fingers."""
    return bool(np.linalg.norm(world[object_name] - world["eef_pos"]) > 0.05)


def scaled_motion(way: np.ndarray, turn: np.ndarray, gripper: float) -> np.ndarray:
    """The motion that covers a distance (3,) in metres and a rotation vector (3,) in radians."""
    # The controller covers only a fraction of each delta in one step: request more than the remaining distance.
    return np.clip(np.concatenate([1.6 * way / DELTA_POS, 1.2 * turn / DELTA_ROT, [gripper]]), -1, 1).astype(np.float32)


def move_to(world: World, goal: np.ndarray, gripper: float, grip: np.ndarray) -> np.ndarray:
    """The motion of the grip site to the goal (3,) in metres."""
    return scaled_motion(goal - world["eef_pos"], rotation_error(world, grip), gripper)


def hover_above(world: World, object_name: str, grip: np.ndarray, heights: tuple[float, float]) -> np.ndarray:
    """The motion to a point above the object: on the way there at the first height (m) above its centre, to stay clear
    of its edges, and there at the second."""
    height = heights[0] if horizontal_distance(world, object_name) > 0.04 else heights[1]
    return move_to(world, world[object_name] + upward(height), OPEN, grip)


def descend(
    world: World, object_name: str, grip: np.ndarray, within: float, patience: float
) -> Generator[np.ndarray, None, bool]:
    """Lower the open hand onto the object until it is `within` metres above its centre, or for `patience` steps.

    Returns whether it is down: it stops early when the object is no longer below it.
    """
    while True:
        yield move_to(world, world[object_name], OPEN, grip)
        patience -= 1
        if horizontal_distance(world, object_name) > 0.03:
            return False
        if world["eef_pos"][2] - world[object_name][2] < within or patience <= 0:
            return True


def approach(
    world: World, object_name: str, grip: np.ndarray, heights: tuple[float, float], patience: float = np.inf
) -> Motions:
    """Hover over the object (see `hover_above`) and descend onto it (see `descend`), again whenever it moves aside."""
    down = False
    while not down:
        while horizontal_distance(world, object_name) >= 0.012 or np.linalg.norm(rotation_error(world, grip)) >= 0.12:
            yield hover_above(world, object_name, grip, heights)
        down = yield from descend(world, object_name, grip, 0.008, patience)


def release(world: World, grip: np.ndarray, wait: int, rise: int, height: float) -> Motions:
    """Open the gripper for `wait` steps and then rise for `rise` steps, with `height` metres ahead in each of them."""
    for step in range(wait + rise):
        yield move_to(world, world["eef_pos"] if step < wait else world["eef_pos"] + upward(height), OPEN, grip)
