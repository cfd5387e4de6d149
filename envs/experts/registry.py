"""The scripted expert of each task: it uses the true poses of the objects and solves the task by small motions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Protocol

import numpy as np

from envs.config import EnvConfig
from envs.experts.assembly import fit_nut_on_peg, place_can_in_bin
from envs.experts.cubes import lift_cube, stack_cubes
from envs.experts.door import open_door
from envs.experts.motions import check_controller
from envs.experts.scripted import ScriptedExpert
from envs.experts.tabletop import pick_cube, push_cube, reach_ball
from envs.registry import PrivilegedEnv
from envs.tasks import TASKS, Simulator
from pixio_robot.errors import UserError, unknown_name


class Expert(Protocol):
    """Acts on privileged state. Call `reset` after every `env.reset`, then `act` once before every step."""

    def reset(self, env: PrivilegedEnv, rng: np.random.Generator) -> None: ...

    def act(self, env: PrivilegedEnv) -> np.ndarray:
        """A motion (a,), float32, to be converted to an action by `motion_to_action`."""
        ...


class MetaworldExpert:
    """MetaWorld's own scripted policy for the task."""

    def reset(self, env: PrivilegedEnv, rng: np.random.Generator) -> None:
        del env, rng

    def act(self, env: PrivilegedEnv) -> np.ndarray:
        return env.scripted_action()  # type: ignore[attr-defined]


_PROGRAMS = {
    "Lift": lift_cube,
    "Stack": stack_cubes,
    "PickPlaceCan": place_can_in_bin,
    "NutAssemblySquare": fit_nut_on_peg,
    "Door": open_door,
    "TabletopReach": reach_ball,
    "TabletopPush": push_cube,
    "TabletopPick": pick_cube,
}

_EXPERTS: dict[str, Callable[[], Expert]] = {
    **{task: functools.partial(ScriptedExpert, program) for task, program in _PROGRAMS.items()},
    **{task: MetaworldExpert for task, known in TASKS.items() if known.simulator is Simulator.METAWORLD},
}


def make_expert(config: EnvConfig) -> Expert:
    """The expert for the task. Raises UserError for a task, robot or controller without one."""
    if config.task not in _EXPERTS:
        raise unknown_name("expert task", config.task, _EXPERTS)
    check_controller(config)
    if config.robot == "UR5e":
        raise UserError(
            "There is no expert for robot=UR5e: robosuite's model of its gripper stops closing at 6 cm and cannot hold "
            "the objects. Use robot=Panda or Sawyer."
        )
    return _EXPERTS[config.task]()
