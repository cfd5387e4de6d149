"""Experts for the tabletop tasks; the gripper does not rotate, so they control positions only."""

from __future__ import annotations

import numpy as np

from envs.registry import Privileged

OPEN, CLOSE = -1.0, 1.0
DELTA = 0.02
"""Metres per step for an action of 1."""


def _command(here: np.ndarray, goal: np.ndarray, gripper: float) -> np.ndarray:
    move = np.clip((goal - here) / DELTA, -1, 1)
    return np.append(move, gripper).astype(np.float32)


class ReachExpert:
    """Moves straight to the target."""

    def reset(self, env: Privileged, rng: np.random.Generator) -> None:
        del env, rng

    def act(self, env: Privileged) -> np.ndarray:
        poses = env.privileged()
        return _command(poses["eef_pos"], poses["target_pos"], CLOSE)


class PushExpert:
    """Moves behind the cube as seen from the target, descends, and pushes; starts over if the cube slides off."""

    def reset(self, env: Privileged, rng: np.random.Generator) -> None:
        del env, rng
        self._down = False

    def act(self, env: Privileged) -> np.ndarray:
        poses = env.privileged()
        here, cube, target = poses["eef_pos"], poses["cube_pos"], poses["target_pos"]
        left = (target - cube)[:2]
        along = left / (np.linalg.norm(left) + 1e-9)
        behind = cube[:2] - 0.055 * along
        offset = here[:2] - cube[:2]
        across = offset @ np.array((-along[1], along[0]))
        ready = offset @ along < -0.02 and abs(across) < 0.012
        if self._down and (not ready and abs(across) > 0.02):
            self._down = False
        if not self._down:
            if np.linalg.norm(here[:2] - behind) < 0.008:
                if here[2] < 0.03:
                    self._down = True
                return _command(here, np.array((*behind, 0.02)), CLOSE)
            return _command(here, np.array((*behind, 0.09)) if here[2] > 0.07 else np.array((*here[:2], 0.09)), CLOSE)
        # Push through the cube's centre, and correct the fingers' sideways offset.
        sideways = np.array((-along[1], along[0])) * across
        return _command(here, np.array((*(here[:2] + 0.012 * along - 1.2 * sideways), 0.02)), CLOSE)


class PickExpert:
    """Moves above the cube, descends, closes the gripper, and lifts; starts over if the cube is lost."""

    def reset(self, env: Privileged, rng: np.random.Generator) -> None:
        del env, rng
        self._phase, self._waited = "above", 0

    def act(self, env: Privileged) -> np.ndarray:
        poses = env.privileged()
        here, cube = poses["eef_pos"], poses["cube_pos"]
        aside = np.linalg.norm((cube - here)[:2])
        if self._phase == "up" and np.linalg.norm(cube - here) > 0.035:
            self._phase = "above"
        if self._phase == "above" and aside < 0.006:
            self._phase = "down"
        elif self._phase == "down" and aside > 0.015:
            self._phase = "above"
        elif self._phase == "down" and here[2] - cube[2] < 0.006:
            self._phase, self._waited = "grip", 0
        elif self._phase == "grip":
            self._waited += 1
            if self._waited > 5:
                self._phase = "up"
        if self._phase == "above":
            clear = cube[2] + 0.06
            low = here[2] < clear - 0.02 and aside > 0.02
            return _command(here, np.array((*(here if low else cube)[:2], clear)), OPEN)
        if self._phase == "down":
            return _command(here, cube, OPEN)
        if self._phase == "grip":
            return _command(here, here, CLOSE)
        return _command(here, np.array((*here[:2], 0.16)), CLOSE)
