"""Scripted experts: they use the true poses of the objects and solve their task with position deltas."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Protocol

import numpy as np

from envs.config import EnvConfig
from envs.motions import DELTA_POS, DELTA_ROT, check_controller
from envs.registry import Privileged
from envs.tasks import TASKS, Simulator
from pixio_robot.errors import UserError, unknown_name

OPEN, CLOSE = -1.0, 1.0
_HOVER = 0.09
"""Height of the fingertip site above the object's centre before descending, metres."""

_GRIP_STEPS = 4
"""Steps from the close command until the fingers hold the object."""


class Expert(Protocol):
    """Acts on privileged state. Call `reset` after every `env.reset`, then `act` once before every step."""

    def reset(self, env: Privileged, rng: np.random.Generator) -> None: ...

    def act(self, env: Privileged) -> np.ndarray:
        """A motion (a,), float32, to be converted to an action by `commanded`."""
        ...


class _Phase(enum.Enum):
    ABOVE = enum.auto()
    DOWN = enum.auto()
    GRIP = enum.auto()
    UP = enum.auto()
    CARRY = enum.auto()
    LOWER = enum.auto()
    RELEASE = enum.auto()


def rotation_vector(rotation: np.ndarray) -> np.ndarray:
    """Axis times angle (rad) of a rotation matrix, for angles below pi."""
    angle = np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))
    axis = np.array((rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]))
    return 0.5 * axis if angle < 1e-4 else axis * angle / (2 * np.sin(angle))


def grasp_yaw(eef: np.ndarray, cube: np.ndarray) -> float:
    """The yaw of the finger axis (x of the grip site) aligned with the cube and nearest to the current one, radians."""
    now = np.arctan2(eef[1, 0], eef[0, 0])
    square = np.arctan2(cube[1, 0], cube[0, 0])
    return now + (square - now + np.pi / 4) % (np.pi / 2) - np.pi / 4


def _up(height: float) -> np.ndarray:
    return np.array((0.0, 0.0, height))


class LiftExpert:
    """Moves above the cube, descends, closes the gripper, and lifts; starts over if the cube slips."""

    target = "cube"

    def reset(self, env: Privileged, rng: np.random.Generator) -> None:
        del rng
        self._half = env.config.half_sizes()
        self._restart(env)

    def _restart(self, env: Privileged) -> None:
        poses = env.privileged()
        self._phase = _Phase.ABOVE
        self._waited = 0
        self._yaw = grasp_yaw(poses["eef_mat"], poses[f"{self.target}_mat"])

    def act(self, env: Privileged) -> np.ndarray:
        poses = env.privileged()
        eef, cube = poses["eef_pos"], poses[f"{self.target}_pos"]
        if self._phase in (_Phase.UP, _Phase.CARRY) and np.linalg.norm(cube - eef) > 0.05:
            self._restart(env)
        self._advance(poses, eef, cube)
        return self._command(poses, *self._goal(poses, eef, cube))

    def _advance(self, poses: dict[str, np.ndarray], eef: np.ndarray, cube: np.ndarray) -> None:
        """Switch to the next phase once the current one is done."""
        aside = np.linalg.norm((cube - eef)[:2])
        if self._phase is _Phase.ABOVE and aside < 0.012 and self._turn_left(poses) < 0.12:
            self._phase = _Phase.DOWN
        elif self._phase is _Phase.DOWN:
            if aside > 0.03:
                self._phase = _Phase.ABOVE
            elif eef[2] - cube[2] < 0.008:
                self._phase, self._waited = _Phase.GRIP, 0
        elif self._phase is _Phase.GRIP:
            self._waited += 1
            if self._waited > _GRIP_STEPS:
                self._phase = _Phase.UP

    def _goal(self, poses: dict[str, np.ndarray], eef: np.ndarray, cube: np.ndarray) -> tuple[np.ndarray, float]:
        """Where the grip site should go, and what the gripper should do."""
        if self._phase is _Phase.ABOVE:
            aside = np.linalg.norm((cube - eef)[:2])
            # Descend on the way, but stay clear of the cube's edges until above it.
            return cube + _up(_HOVER if aside > 0.04 else 0.6 * _HOVER), OPEN
        if self._phase is _Phase.DOWN:
            return cube, OPEN
        if self._phase is _Phase.GRIP:
            return cube, CLOSE
        return eef + _up(0.06), CLOSE

    def _turn_left(self, poses: dict[str, np.ndarray]) -> float:
        return float(np.linalg.norm(self._rotation_error(poses)))

    def _rotation_error(self, poses: dict[str, np.ndarray]) -> np.ndarray:
        x = np.array((np.cos(self._yaw), np.sin(self._yaw), 0.0))
        down = np.array((0.0, 0.0, -1.0))
        wanted = np.stack([x, np.cross(down, x), down], axis=1)
        return rotation_vector(wanted @ poses["eef_mat"].T)

    def _command(self, poses: dict[str, np.ndarray], goal: np.ndarray, gripper: float) -> np.ndarray:
        # The controller covers only a fraction of each delta in one step: request more than the remaining distance.
        move = 1.6 * (goal - poses["eef_pos"]) / DELTA_POS
        turn = 1.2 * self._rotation_error(poses) / DELTA_ROT
        return np.clip(np.concatenate([move, turn, [gripper]]), -1, 1).astype(np.float32)


class StackExpert(LiftExpert):
    """Picks up cubeA like LiftExpert, carries it over cubeB, puts it down and releases it."""

    target = "cubeA"

    def _advance(self, poses: dict[str, np.ndarray], eef: np.ndarray, cube: np.ndarray) -> None:
        super()._advance(poses, eef, cube)
        base = poses["cubeB_pos"]
        stacked = base[2] + self._half["cubeA"] + self._half["cubeB"]
        aside = np.linalg.norm((base - cube)[:2])
        if self._phase is _Phase.UP and cube[2] > stacked + 0.03:
            self._phase = _Phase.CARRY
        elif self._phase is _Phase.CARRY and aside < 0.008:
            self._phase = _Phase.LOWER
        elif self._phase is _Phase.LOWER:
            if aside > 0.025:
                self._phase = _Phase.CARRY
            elif cube[2] < stacked + 0.004:
                self._phase, self._waited = _Phase.RELEASE, 0
        elif self._phase is _Phase.RELEASE:
            self._waited += 1
            if self._waited > 12:
                self._phase = _Phase.ABOVE

    def _goal(self, poses: dict[str, np.ndarray], eef: np.ndarray, cube: np.ndarray) -> tuple[np.ndarray, float]:
        base = poses["cubeB_pos"]
        stacked = base + _up(self._half["cubeA"] + self._half["cubeB"])
        # The cube moves with the gripper: move the gripper by the error of the cube's position.
        if self._phase is _Phase.CARRY:
            return eef + (stacked + _up(0.04) - cube), CLOSE
        if self._phase is _Phase.LOWER:
            return eef + (stacked - cube) * (1, 1, 0.7) - _up(0.004), CLOSE
        if self._phase is _Phase.RELEASE:
            return eef if self._waited < 3 else eef + _up(0.03), OPEN
        return super()._goal(poses, eef, cube)


def _experts() -> dict[str, Callable[[], Expert]]:
    from envs.assembly_experts import CanExpert, DoorExpert, SquareExpert
    from envs.tabletop_experts import PickExpert, PushExpert, ReachExpert

    return {
        "Lift": LiftExpert,
        "Stack": StackExpert,
        "PickPlaceCan": CanExpert,
        "NutAssemblySquare": SquareExpert,
        "Door": DoorExpert,
        "TabletopReach": ReachExpert,
        "TabletopPush": PushExpert,
        "TabletopPick": PickExpert,
        **{task: MetaworldExpert for task, known in TASKS.items() if known.simulator is Simulator.METAWORLD},
    }


class MetaworldExpert:
    """MetaWorld's own scripted policy for the task."""

    def reset(self, env: Privileged, rng: np.random.Generator) -> None:
        del env, rng

    def act(self, env: Privileged) -> np.ndarray:
        return env.scripted_action()  # type: ignore[attr-defined]


def make_expert(config: EnvConfig) -> Expert:
    """The expert for the task. Raises UserError for a task, robot or controller without one."""
    experts = _experts()
    if config.task not in experts:
        raise unknown_name("expert task", config.task, experts)
    check_controller(config)
    if config.robot == "UR5e":
        raise UserError(
            "There is no expert for robot=UR5e: robosuite's model of its gripper stops closing at 6 cm and cannot hold "
            "the objects. Use robot=Panda or Sawyer."
        )
    return experts[config.task]()
