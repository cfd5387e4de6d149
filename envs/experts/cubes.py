"""Experts for robosuite's cubes: one is lifted, or stacked on another."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from envs.experts.grasping import approach, get_yaw, grip_down, has_slipped, hover_above, move_to, release, upward
from envs.experts.motions import CLOSE
from envs.experts.scripted import Motions, World

_HOVER_HEIGHTS = 0.09, 0.6 * 0.09
"""Heights of the fingertip site above the cube's centre before descending (see `grasping.hover_above`), metres."""

_GRIP_STEPS = 5
"""Steps from the close command until the fingers hold the cube."""


def lift_cube(world: World) -> Motions:
    """Moves above the cube, descends, closes the gripper, and lifts until the cube slips."""
    grip = _cube_grip(world, "cube")
    yield from _grasp(world, "cube", grip)
    held = True
    while held:
        yield _move_up(world, grip)
        held = not has_slipped(world, "cube_pos")


def stack_cubes(world: World) -> Motions:
    """Picks up cubeA like `lift_cube`, carries it over cubeB, puts it down and releases it; ends if cubeA slips."""
    grip = _cube_grip(world, "cubeA")
    while True:
        yield from _grasp(world, "cubeA", grip)
        while world["cubeA_pos"][2] <= _stacked_position(world)[2] + 0.03:
            yield _move_up(world, grip)
            if has_slipped(world, "cubeA_pos"):
                return
        down = False
        while not down:
            # The cube moves with the gripper: move the gripper by the error of the cube's position.
            way = _stacked_position(world) + upward(0.04) - world["cubeA_pos"]
            yield move_to(world, world["eef_pos"] + way, CLOSE, grip)
            if has_slipped(world, "cubeA_pos"):
                return
            if _placement_error(world) < 0.008:
                down = yield from _lower_onto_cube(world, grip)
        yield from release(world, grip, wait=3, rise=10, height=0.03)
        yield hover_above(world, "cubeA_pos", grip, _HOVER_HEIGHTS)


def _cube_grip(world: World, cube: str) -> np.ndarray:
    """The grip (3, 3) that takes the cube by its sides, with the smallest turn."""
    now, square = get_yaw(world["eef_mat"]), get_yaw(world[f"{cube}_mat"])
    return grip_down(now + (square - now + np.pi / 4) % (np.pi / 2) - np.pi / 4)


def _grasp(world: World, cube: str, grip: np.ndarray) -> Motions:
    yield from approach(world, f"{cube}_pos", grip, _HOVER_HEIGHTS)
    for _ in range(_GRIP_STEPS):
        yield move_to(world, world[f"{cube}_pos"], CLOSE, grip)


def _move_up(world: World, grip: np.ndarray) -> np.ndarray:
    return move_to(world, world["eef_pos"] + upward(0.06), CLOSE, grip)


def _stacked_position(world: World) -> np.ndarray:
    """Where cubeA's centre is once it lies on cubeB (3,), metres."""
    half = world.config.half_sizes()
    return world["cubeB_pos"] + upward(half["cubeA"] + half["cubeB"])


def _placement_error(world: World) -> float:
    """Horizontal distance of cubeA from its place, metres."""
    return float(np.linalg.norm((_stacked_position(world) - world["cubeA_pos"])[:2]))


def _lower_onto_cube(world: World, grip: np.ndarray) -> Generator[np.ndarray, None, bool]:
    """Lower cubeA onto cubeB. Returns whether it lies there: it stops early when cubeA is no longer above cubeB."""
    while True:
        way = (_stacked_position(world) - world["cubeA_pos"]) * (1, 1, 0.7)
        yield move_to(world, world["eef_pos"] + way - upward(0.004), CLOSE, grip)
        if _placement_error(world) > 0.025:
            return False
        if world["cubeA_pos"][2] < _stacked_position(world)[2] + 0.004:
            return True
