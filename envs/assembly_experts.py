"""Experts for robosuite's longer tasks: can into bin, square nut onto peg, door opening by the handle."""

from __future__ import annotations

import numpy as np

from envs.experts import CLOSE, OPEN, LiftExpert, _Phase, _up, rotation_vector
from envs.registry import Privileged

_CAN_CLEAR = 1.06
"""Height of the can's centre (m) at which it clears the walls of the bins."""

_BIN_CENTRE, _BIN_HALF = np.array((0.1, -0.25)), np.array((0.2, 0.245))
"""The bin in which the can starts (m)."""

_NUT_CLEAR = 1.02
"""Height of the nut (m) at which it clears the peg."""


_FREE = 0.05
"""Sine of the door angle from which on the latch no longer holds the door."""

_TILT = 0.6
"""Angle (rad) between the hand that opens the door and straight down."""


_DEEPER = {"Sawyer": 0.018}
"""Offset beyond the grip site (m) at which a hand grasps the handle: otherwise Sawyer's short fingers slip off."""


_STUCK = 20
"""Steps after which the hand closes where it is: a handle that is still turned may block its way."""


def nearest_turn(angle: float, period: float) -> float:
    """The angle modulo the period that is nearest to zero."""
    return (angle + period / 2) % period - period / 2


class CanExpert(LiftExpert):
    """Picks up the can, carries it over its goal in the other bin, and releases it just above the floor."""

    target = "can"

    def reset(self, env: Privileged, rng: np.random.Generator) -> None:
        del rng
        self._descent = 0
        self._restart(env)

    def _restart(self, env: Privileged) -> None:
        super()._restart(env)
        poses = env.privileged()
        # The can is round: close the fingers parallel to the nearer wall, where there is room for them.
        gap = _BIN_HALF - np.abs(poses["can_pos"][:2] - _BIN_CENTRE)
        along = np.pi / 2 if gap[0] < gap[1] else 0.0
        now = float(np.arctan2(poses["eef_mat"][1, 0], poses["eef_mat"][0, 0]))
        self._yaw = now + nearest_turn(along - now, np.pi)

    def _advance(self, poses: dict[str, np.ndarray], eef: np.ndarray, cube: np.ndarray) -> None:
        before = self._phase
        super()._advance(poses, eef, cube)
        # The fingers are blocked by a wall of the bin: grip at the depth they have reached.
        self._descent = self._descent + 1 if self._phase is before is _Phase.DOWN else 0
        if self._descent > 20:
            self._phase, self._waited = _Phase.GRIP, 0
        aside = np.linalg.norm((poses["can_goal_pos"] - cube)[:2])
        if self._phase is _Phase.UP and cube[2] > _CAN_CLEAR - 0.02:
            self._phase = _Phase.CARRY
        elif self._phase is _Phase.CARRY and aside < 0.03:
            self._phase = _Phase.LOWER
        elif self._phase is _Phase.LOWER and cube[2] < 0.92:
            self._phase, self._waited = _Phase.RELEASE, 0
        elif self._phase is _Phase.RELEASE:
            self._waited += 1
            if self._waited > 25:
                self._phase = _Phase.ABOVE

    def _goal(self, poses: dict[str, np.ndarray], eef: np.ndarray, cube: np.ndarray) -> tuple[np.ndarray, float]:
        place = poses["can_goal_pos"]
        if self._phase is _Phase.ABOVE:
            aside = np.linalg.norm((cube - eef)[:2])
            return cube + _up(0.14 if aside > 0.04 else 0.08), OPEN
        if self._phase is _Phase.UP:
            return np.array((*eef[:2], eef[2] + _CAN_CLEAR - cube[2] + 0.02)), CLOSE
        if self._phase is _Phase.CARRY:
            return eef + np.array((*(place - cube)[:2], _CAN_CLEAR - cube[2])), CLOSE
        if self._phase is _Phase.LOWER:
            return eef + np.array((*(place - cube)[:2], 0.88 - cube[2])), CLOSE
        if self._phase is _Phase.RELEASE:
            return eef if self._waited < 4 else eef + _up(0.08), OPEN
        if self._phase is _Phase.GRIP:
            return eef, CLOSE
        return super()._goal(poses, eef, cube)


class SquareExpert(LiftExpert):
    """Grasps the nut by its handle, aligns it with the peg, and lowers it with integral control of the error."""

    target = "square_nut"

    def reset(self, env: Privileged, rng: np.random.Generator) -> None:
        del rng
        self._restart(env)

    def _restart(self, env: Privileged) -> None:
        poses = env.privileged()
        self._phase, self._waited = _Phase.ABOVE, 0
        self._drift = np.zeros(2)
        self._aim(poses)

    def _aim(self, poses: dict[str, np.ndarray]) -> None:
        """Turn the finger axis across the handle."""
        handle = (poses["square_nut_handle_pos"] - poses["square_nut_pos"])[:2]
        now = np.arctan2(poses["eef_mat"][1, 0], poses["eef_mat"][0, 0])
        across = np.arctan2(handle[1], handle[0]) + np.pi / 2
        self._yaw = now + nearest_turn(across - now, np.pi)

    def act(self, env: Privileged) -> np.ndarray:
        poses = env.privileged()
        eef, handle, nut = poses["eef_pos"], poses["square_nut_handle_pos"], poses["square_nut_pos"]
        if self._phase in (_Phase.UP, _Phase.CARRY, _Phase.LOWER) and np.linalg.norm(handle - eef) > 0.05:
            self._restart(env)
        self._step(poses, eef, handle, nut)
        return self._command(poses, *self._target(poses, eef, handle, nut))

    def _square_error(self, poses: dict[str, np.ndarray]) -> float:
        nut = poses["square_nut_mat"]
        return nearest_turn(-float(np.arctan2(nut[1, 0], nut[0, 0])), np.pi / 2)

    def _step(self, poses: dict[str, np.ndarray], eef: np.ndarray, handle: np.ndarray, nut: np.ndarray) -> None:
        aside = np.linalg.norm((handle - eef)[:2])
        off = poses["square_peg_pos"][:2] - nut[:2]
        self._waited += 1
        if self._phase is _Phase.ABOVE:
            # The nut falls and slides in the first steps: aim at where it is now.
            self._aim(poses)
            if aside < 0.01 and self._turn_left(poses) < 0.1:
                self._phase, self._waited = _Phase.DOWN, 0
        elif self._phase is _Phase.DOWN:
            if aside > 0.03:
                self._phase = _Phase.ABOVE
            elif eef[2] - handle[2] < 0.006 or self._waited > 25:
                self._phase, self._waited = _Phase.GRIP, 0
        elif self._phase is _Phase.GRIP and self._waited > 6:
            self._phase = _Phase.UP
        elif self._phase is _Phase.UP and nut[2] > _NUT_CLEAR - 0.03:
            self._phase, self._waited = _Phase.CARRY, 0
            now = np.arctan2(poses["eef_mat"][1, 0], poses["eef_mat"][0, 0])
            self._yaw = now + self._square_error(poses)
        elif self._phase is _Phase.CARRY:
            if np.linalg.norm(off) < 0.05:
                self._drift = np.clip(self._drift + 0.12 * off, -0.03, 0.03)
                now = np.arctan2(poses["eef_mat"][1, 0], poses["eef_mat"][0, 0])
                self._yaw += 0.15 * (now + self._square_error(poses) - self._yaw)
            if np.linalg.norm(off) < 0.003 and abs(self._square_error(poses)) < 0.05:
                self._phase, self._waited = _Phase.LOWER, 0
        elif self._phase is _Phase.LOWER:
            self._drift = np.clip(self._drift + 0.05 * off, -0.03, 0.03)
            if nut[2] < 0.865 or self._waited > 60:
                self._phase, self._waited = _Phase.RELEASE, 0
        elif self._phase is _Phase.RELEASE and self._waited > 20:
            self._phase = _Phase.ABOVE

    def _target(
        self, poses: dict[str, np.ndarray], eef: np.ndarray, handle: np.ndarray, nut: np.ndarray
    ) -> tuple[np.ndarray, float]:
        peg = poses["square_peg_pos"]
        if self._phase is _Phase.ABOVE:
            aside = np.linalg.norm((handle - eef)[:2])
            return handle + _up(0.08 if aside > 0.04 else 0.05), OPEN
        if self._phase is _Phase.DOWN:
            return handle, OPEN
        if self._phase is _Phase.GRIP:
            return eef, CLOSE
        if self._phase is _Phase.UP:
            return eef + _up(_NUT_CLEAR - nut[2] + 0.02), CLOSE
        if self._phase in (_Phase.CARRY, _Phase.LOWER):
            height = _NUT_CLEAR if self._phase is _Phase.CARRY else 0.85
            move = np.array((*(peg - nut)[:2], height - nut[2]))
            move[:2] += self._drift
            limit = (0.06, 0.06, 0.03)
            return eef + np.clip(move, np.negative(limit), limit), CLOSE
        return (eef if self._waited < 4 else eef + _up(0.08)), OPEN


class DoorExpert(LiftExpert):
    """Straddles the handle from above, grips it, presses it down until the latch is free, and pulls."""

    target = "door_handle"

    def reset(self, env: Privileged, rng: np.random.Generator) -> None:
        del rng
        poses = env.privileged()
        self._start = poses["door_handle_pos"][2]
        self._closed = poses["door_mat"][:2, 0].copy()
        self._restart(env)

    def _restart(self, env: Privileged) -> None:
        poses = env.privileged()
        self._phase, self._waited = _Phase.ABOVE, 0
        # Keep the hand's current orientation of the two possible ones: the fingers are symmetric.
        self._sign = 1.0 if poses["eef_mat"][:, 0] @ self._outward(poses) > 0 else -1.0

    def _outward(self, poses: dict[str, np.ndarray]) -> np.ndarray:
        normal = poses["door_mat"][:, 1]
        return normal if normal[1] > 0 else -normal

    def _approach(self, poses: dict[str, np.ndarray]) -> np.ndarray:
        """Down and towards the door: a hand that points straight down would touch the panel."""
        return -np.sin(_TILT) * self._outward(poses) - _up(np.cos(_TILT))

    def _rotation_error(self, poses: dict[str, np.ndarray]) -> np.ndarray:
        down = self._approach(poses)
        x = self._sign * (np.cos(_TILT) * self._outward(poses) - _up(np.sin(_TILT)))
        wanted = np.stack([x, np.cross(down, x), down], axis=1)
        return rotation_vector(wanted @ poses["eef_mat"].T)

    def act(self, env: Privileged) -> np.ndarray:
        poses = env.privileged()
        # From here on, eef_pos is the point of the hand that is to be on the handle.
        poses["eef_pos"] = poses["eef_pos"] - _DEEPER.get(env.config.robot, 0.0) * self._approach(poses)
        eef, handle = poses["eef_pos"], poses["door_handle_pos"]
        self._waited += 1
        left = np.linalg.norm(handle - 0.09 * self._approach(poses) - eef)
        if self._phase is _Phase.ABOVE and left < 0.015 and self._turn_left(poses) < 0.12:
            self._phase, self._waited = _Phase.DOWN, 0
        elif self._phase is _Phase.DOWN and (np.linalg.norm(handle - eef) < 0.012 or self._waited > _STUCK):
            self._phase, self._waited = _Phase.GRIP, 0
        elif self._phase is _Phase.GRIP and self._waited > 6:
            self._phase, self._waited = _Phase.LOWER, 0
        elif self._phase is _Phase.LOWER and (handle[2] < self._start - 0.10 or self._waited > 25):
            self._phase, self._waited = _Phase.CARRY, 0
        stuck = self._phase is _Phase.CARRY and self._waited > 60
        slipped = self._phase in (_Phase.LOWER, _Phase.CARRY) and np.linalg.norm(handle - eef) > 0.07
        if stuck or slipped:
            self._restart(env)
        return self._command(poses, *self._target(poses, eef, handle))

    def _target(self, poses: dict[str, np.ndarray], eef: np.ndarray, handle: np.ndarray) -> tuple[np.ndarray, float]:
        if self._phase is _Phase.ABOVE:
            clear = handle - 0.09 * self._approach(poses)
            # Up first: the gripper may start beside the handle and below its top.
            return (clear if eef[2] > handle[2] + 0.04 else np.array((*eef[:2], clear[2]))), OPEN
        if self._phase is _Phase.DOWN:
            return handle, OPEN
        if self._phase is _Phase.GRIP:
            return eef, CLOSE
        # The handle rotates about the latch: follow its circle, and hold it down while pulling, as it springs back.
        arm = np.cross(self._outward(poses), handle - poses["latch_pos"])
        down = -np.sign(arm[2]) * arm / np.linalg.norm(arm)
        if self._phase is _Phase.LOWER:
            return handle + 0.035 * down, CLOSE
        outward = self._outward(poses)
        if poses["door_mat"][1, 0] * self._closed[0] - poses["door_mat"][0, 0] * self._closed[1] > _FREE:
            # Gently, following the handle: with a jerk the fingers would slide off.
            off = handle - eef
            return eef + 0.022 * outward + 0.4 * (off - outward * (off @ outward)), CLOSE
        held = np.clip(handle[2] - (self._start - 0.10), 0.0, 0.03)
        return handle + 0.05 * outward + held * down, CLOSE
