"""Expert for robosuite's door, which is opened by its handle."""

from __future__ import annotations

import numpy as np

from envs.experts.grasping import grip_along, rotation_error, scaled_motion, upward
from envs.experts.motions import CLOSE, OPEN
from envs.experts.scripted import Motions, World

_LATCH_FREE_SINE = 0.05
"""Sine of the door angle from which on the latch no longer holds the door."""

_HAND_TILT = 0.6
"""Angle (rad) between the hand that opens the door and straight down."""

_GRIP_OFFSETS = {"Sawyer": 0.018}
"""Offset beyond the grip site (m) at which a hand grasps the handle: otherwise Sawyer's short fingers slip off."""

_MAX_DESCENT_STEPS = 21
"""Steps after which the hand closes where it is: a handle that is still turned may block its way."""

_PRESS_DEPTH = 0.10
"""How far the handle is pressed down, metres."""

_PRESS_STEPS, _PULL_STEPS = 26, 61
"""Steps after which the hand pulls even if the handle is not down, and after which it lets go and starts over."""


def open_door(world: World) -> Motions:
    """Straddles the handle from above, grips it, presses it down until the latch is free, and pulls; ends if the
    fingers slip off or the door does not open."""
    # Keep the hand's current orientation of the two possible ones: the fingers are symmetric.
    sign = 1.0 if world["eef_mat"][:, 0] @ _door_normal(world) > 0 else -1.0
    over = False
    while not over:
        (x, y, height), clear = _contact_point(world), _above_handle(world)
        # Up first: the gripper may start beside the handle and below its top.
        up_there = height > world["door_handle_pos"][2] + 0.04
        yield _move(world, clear if up_there else np.array((x, y, clear[2])), OPEN, sign)
        left = np.linalg.norm(_above_handle(world) - _contact_point(world))
        over = left < 0.015 and np.linalg.norm(rotation_error(world, _grip(world, sign))) < 0.12
    for _ in range(_MAX_DESCENT_STEPS):
        yield _move(world, world["door_handle_pos"], OPEN, sign)
        if _handle_distance(world) < 0.012:
            break
    for _ in range(7):
        yield _move(world, _contact_point(world), CLOSE, sign)
    for _ in range(_PRESS_STEPS):
        if _handle_distance(world) > 0.07:
            return
        yield _move(world, world["door_handle_pos"] + 0.035 * _press_direction(world), CLOSE, sign)
        if world["door_handle_pos"][2] < _pressed_height(world):
            break
    for _ in range(_PULL_STEPS):
        if _handle_distance(world) > 0.07:
            return
        yield _move(world, _pull_goal(world), CLOSE, sign)


def _door_normal(world: World) -> np.ndarray:
    """The door's normal (3,) on the robot's side."""
    normal = world["door_mat"][:, 1]
    return normal if normal[1] > 0 else -normal


def _hand_direction(world: World) -> np.ndarray:
    """Down and towards the door (3,): a hand that points straight down would touch the panel."""
    return -np.sin(_HAND_TILT) * _door_normal(world) - upward(np.cos(_HAND_TILT))


def _grip(world: World, sign: float) -> np.ndarray:
    """The grip (3, 3) of the tilted hand; sign: which finger is nearer to the door."""
    return grip_along(
        sign * (np.cos(_HAND_TILT) * _door_normal(world) - upward(np.sin(_HAND_TILT))), _hand_direction(world)
    )


def _contact_point(world: World) -> np.ndarray:
    """The point of the hand that is to be on the handle (3,), metres."""
    return world["eef_pos"] - _GRIP_OFFSETS.get(world.config.robot, 0.0) * _hand_direction(world)


def _move(world: World, goal: np.ndarray, gripper: float, sign: float) -> np.ndarray:
    """The motion of that point to the goal (3,) in metres."""
    return scaled_motion(goal - _contact_point(world), rotation_error(world, _grip(world, sign)), gripper)


def _above_handle(world: World) -> np.ndarray:
    """Where the hand is clear of the handle and only has to move on along its own direction (3,), metres."""
    return world["door_handle_pos"] - 0.09 * _hand_direction(world)


def _handle_distance(world: World) -> float:
    """Distance between hand and handle, metres."""
    return float(np.linalg.norm(world["door_handle_pos"] - _contact_point(world)))


def _pressed_height(world: World) -> float:
    """Height of the handle from which on it counts as pressed down, metres."""
    return world.start["door_handle_pos"][2] - _PRESS_DEPTH


def _press_direction(world: World) -> np.ndarray:
    """The direction (3,) in which the handle goes down: it rotates about the latch."""
    arm = np.cross(_door_normal(world), world["door_handle_pos"] - world["latch_pos"])
    return -np.sign(arm[2]) * arm / np.linalg.norm(arm)


def _pull_goal(world: World) -> np.ndarray:
    """Where the hand should go to pull the door open (3,), metres."""
    handle, outward = world["door_handle_pos"], _door_normal(world)
    closed, now = world.start["door_mat"][:, 0], world["door_mat"][:, 0]
    if now[1] * closed[0] - now[0] * closed[1] > _LATCH_FREE_SINE:
        # Gently, following the handle: with a jerk the fingers would slide off.
        off = handle - _contact_point(world)
        return _contact_point(world) + 0.022 * outward + 0.4 * (off - outward * (off @ outward))
    # Hold the handle down while pulling, as it springs back.
    held = np.clip(handle[2] - _pressed_height(world), 0.0, 0.03)
    return handle + 0.05 * outward + held * _press_direction(world)
