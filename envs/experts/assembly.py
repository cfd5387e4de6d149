"""Experts for robosuite's tasks in which an object is put into another: a can into a bin, a square nut onto a peg."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from envs.experts.grasping import (
    approach,
    descend,
    get_yaw,
    grip_down,
    has_slipped,
    horizontal_distance,
    hover_above,
    move_to,
    release,
    rotation_error,
    upward,
    wrap_angle,
)
from envs.experts.motions import CLOSE
from envs.experts.scripted import Motions, World

_CAN_CLEARANCE_HEIGHT = 1.06
"""Height of the can's centre (m) at which it clears the walls of the bins."""

_BIN_CENTRE, _BIN_HALF = np.array((0.1, -0.25)), np.array((0.2, 0.245))
"""The bin in which the can starts (m)."""

_HANDLE = "square_nut_handle_pos"

_CAN_HOVER_HEIGHTS, _NUT_HOVER_HEIGHTS = (0.14, 0.08), (0.08, 0.05)
"""Heights of the fingertip site above can and handle before descending (see `grasping.hover_above`), metres."""

_NUT_CLEARANCE_HEIGHT = 1.02
"""Height of the nut (m) at which it clears the peg."""

_AROUND_PEG_HEIGHT = 0.93
"""Height of the nut (m) at which the peg's top is inside it: it lies on the peg at 0.96 and at its foot below 0.87."""

_LOWER_STEPS = 31
"""Steps in which the nut gets there, unless it meets the peg askew: then it is aligned anew."""


def place_can_in_bin(world: World) -> Motions:
    """Picks up the can, carries it over its goal in the other bin, and releases it just above the floor; ends if it
    slips on the way."""
    grip = _can_grip(world)
    while True:
        # If the fingers are blocked by a wall of the bin, grip at the depth that they have reached.
        yield from approach(world, "can_pos", grip, _CAN_HOVER_HEIGHTS, patience=21)
        for _ in range(5):
            yield move_to(world, world["eef_pos"], CLOSE, grip)
        while world["can_pos"][2] <= _CAN_CLEARANCE_HEIGHT - 0.02:
            x, y, z = world["eef_pos"]
            yield move_to(world, np.array((x, y, z + _CAN_CLEARANCE_HEIGHT - world["can_pos"][2] + 0.02)), CLOSE, grip)
            if has_slipped(world, "can_pos"):
                return
        over = False
        while not over:
            yield _move_can(world, _CAN_CLEARANCE_HEIGHT, grip)
            if has_slipped(world, "can_pos"):
                return
            over = np.linalg.norm((world["can_goal_pos"] - world["can_pos"])[:2]) < 0.03
        low = False
        while not low:
            yield _move_can(world, 0.88, grip)
            low = world["can_pos"][2] < 0.92
        yield from release(world, grip, wait=4, rise=22, height=0.08)
        yield hover_above(world, "can_pos", grip, _CAN_HOVER_HEIGHTS)


def _can_grip(world: World) -> np.ndarray:
    """The grip (3, 3) for the can, which is round: the fingers close parallel to the nearer wall, where there is room
    for them."""
    gap = _BIN_HALF - np.abs(world["can_pos"][:2] - _BIN_CENTRE)
    along = np.pi / 2 if gap[0] < gap[1] else 0.0
    now = get_yaw(world["eef_mat"])
    return grip_down(now + wrap_angle(along - now, np.pi))


def _move_can(world: World, height: float, grip: np.ndarray) -> np.ndarray:
    """The motion that brings the can over its goal, at that height in metres."""
    way = world["can_goal_pos"] - world["can_pos"]
    return move_to(world, world["eef_pos"] + np.array((way[0], way[1], height - world["can_pos"][2])), CLOSE, grip)


def fit_nut_on_peg(world: World) -> Motions:
    """Grasps the nut by its handle, aligns it with the peg, lowers it around the peg's top and lets it fall; ends if it
    slips."""
    drift = np.zeros(2)
    while True:
        grip = yield from _grasp_handle(world)
        yield from _lift_nut(world, grip)
        around_peg = False
        while not around_peg:
            grip = yield from _align_nut(world, drift)
            yield from _lower_nut(world, drift, grip)
            if has_slipped(world, _HANDLE):
                return
            around_peg = world["square_nut_pos"][2] < _AROUND_PEG_HEIGHT
        # Held any lower, it tilts and jams on the peg.
        yield from release(world, grip, wait=4, rise=17, height=0.08)
        yield hover_above(world, _HANDLE, grip, _NUT_HOVER_HEIGHTS)


def _grasp_handle(world: World) -> Generator[np.ndarray, None, np.ndarray]:
    """Grasp the nut by its handle. Returns the grip (3, 3)."""
    while True:
        # The nut falls and slides in the first steps: aim at where it is now.
        grip = _handle_grip(world)
        over = horizontal_distance(world, _HANDLE) < 0.01 and np.linalg.norm(rotation_error(world, grip)) < 0.1
        if over and (yield from descend(world, _HANDLE, grip, within=0.006, patience=26)):
            break
        yield hover_above(world, _HANDLE, grip, _NUT_HOVER_HEIGHTS)
    for _ in range(7):
        yield move_to(world, world["eef_pos"], CLOSE, grip)
    return grip


def _lift_nut(world: World, grip: np.ndarray) -> Motions:
    """Lift the nut clear of the peg; ends early if it slips."""
    while world["square_nut_pos"][2] <= _NUT_CLEARANCE_HEIGHT - 0.03 and not has_slipped(world, _HANDLE):
        rise = _NUT_CLEARANCE_HEIGHT - world["square_nut_pos"][2] + 0.02
        yield move_to(world, world["eef_pos"] + upward(rise), CLOSE, grip)


def _align_nut(world: World, drift: np.ndarray) -> Generator[np.ndarray, None, np.ndarray]:
    """Bring the nut to rest over the peg; ends early if it slips. Returns the grip (3, 3).

    Near the peg, `drift` (2,) integrates the error, in metres.
    """
    yaw, aligned = _target_yaw(world), False
    off = _peg_offset(world)
    while not aligned and not has_slipped(world, _HANDLE):
        before = off
        yield _move_nut(world, _NUT_CLEARANCE_HEIGHT, drift, grip_down(yaw))
        off = _peg_offset(world)
        if np.linalg.norm(off) < 0.05:
            _integrate(drift, 0.12 * off)
            yaw += 0.15 * (_target_yaw(world) - yaw)
        at_rest = np.linalg.norm(off - before) < 0.006
        aligned = at_rest and np.linalg.norm(off) < 0.005 and abs(_peg_rotation_error(world)) < 0.06
    return grip_down(yaw)


def _lower_nut(world: World, drift: np.ndarray, grip: np.ndarray) -> Motions:
    """Lower the nut around the peg, still integrating the error; ends early if it slips or leaves the peg's axis."""
    for _ in range(_LOWER_STEPS):
        off = _peg_offset(world)
        around_peg = world["square_nut_pos"][2] < _AROUND_PEG_HEIGHT
        if around_peg or has_slipped(world, _HANDLE) or np.linalg.norm(off) > 0.01:
            return
        yield _move_nut(world, 0.85, drift, grip)
        _integrate(drift, 0.05 * _peg_offset(world))


def _integrate(drift: np.ndarray, error: np.ndarray) -> None:
    """Add the error (2,) to the drift (2,), in place."""
    np.clip(drift + error, -0.03, 0.03, out=drift)


def _handle_grip(world: World) -> np.ndarray:
    """The grip (3, 3) whose finger axis is across the handle."""
    handle = world[_HANDLE] - world["square_nut_pos"]
    now = get_yaw(world["eef_mat"])
    across = float(np.arctan2(handle[1], handle[0])) + np.pi / 2
    return grip_down(now + wrap_angle(across - now, np.pi))


def _peg_rotation_error(world: World) -> float:
    """The turn after which the nut fits onto the peg, radians."""
    return wrap_angle(-get_yaw(world["square_nut_mat"]), np.pi / 2)


def _target_yaw(world: World) -> float:
    """The yaw of the hand after that turn, radians."""
    return get_yaw(world["eef_mat"]) + _peg_rotation_error(world)


def _peg_offset(world: World) -> np.ndarray:
    """From the nut to the peg, horizontally (2,), metres."""
    return world["square_peg_pos"][:2] - world["square_nut_pos"][:2]


def _move_nut(world: World, height: float, drift: np.ndarray, grip: np.ndarray) -> np.ndarray:
    """The motion that brings the nut over the peg, at that height in metres; drift (2,): the integrated error."""
    off = _peg_offset(world) + drift
    move = np.array((off[0], off[1], height - world["square_nut_pos"][2]))
    limit = (0.06, 0.06, 0.03)
    return move_to(world, world["eef_pos"] + np.clip(move, np.negative(limit), limit), CLOSE, grip)
