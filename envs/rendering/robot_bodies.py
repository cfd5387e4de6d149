"""Which bodies of a MuJoCo model are the robot."""

# pyright: reportAttributeAccessIssue=false
# mujoco fills its namespace from a compiled module that pyright cannot read.

from __future__ import annotations

import mujoco

from envs.tasks import THIRD_PARTY, Simulator

_ROBOSUITE = ("robot", "gripper", "fixed_mount", "left_eef", "right_eef")
_PREFIXES = {
    Simulator.ROBOSUITE: _ROBOSUITE,
    Simulator.ROBOMIMIC: _ROBOSUITE,
    Simulator.TABLETOP: ("hand", "finger"),
    Simulator.METAWORLD: ("hand", "right_", "rightclaw", "rightpad", "leftclaw", "leftpad"),
}


def find_robot_bodies(model: mujoco.MjModel, simulator: Simulator) -> set[int]:
    """The indices of the robot's bodies; a body that descends from one of them is the robot as well.

    In models that we know, by the beginnings of names. In third-party models, every kinematic tree that an actuator
    moves: the whole of a humanoid, with its torso.
    """
    if simulator not in THIRD_PARTY:
        prefixes = _PREFIXES[simulator]
        return {body for body in range(model.nbody) if model.body(body).name.startswith(prefixes)}
    moved = {body for actuator in range(model.nu) for body in _actuated_bodies(model, actuator)}
    return {int(model.body_rootid[body]) for body in moved} - {0}


def _actuated_bodies(model: mujoco.MjModel, actuator: int) -> list[int]:
    """The bodies on which an actuator acts."""
    kinds, target = mujoco.mjtTrn, model.actuator_trnid[actuator, 0]
    kind = model.actuator_trntype[actuator]
    if kind in (kinds.mjTRN_JOINT, kinds.mjTRN_JOINTINPARENT):
        return [model.jnt_bodyid[target]]
    if kind in (kinds.mjTRN_SITE, kinds.mjTRN_SLIDERCRANK):
        return [model.site_bodyid[target]]
    if kind == kinds.mjTRN_BODY:
        return [target]
    if kind != kinds.mjTRN_TENDON:
        return []
    bodies, first = [], model.tendon_adr[target]
    for wrap in range(first, first + model.tendon_num[target]):
        if model.wrap_type[wrap] == mujoco.mjtWrap.mjWRAP_JOINT:
            bodies.append(model.jnt_bodyid[model.wrap_objid[wrap]])
        elif model.wrap_type[wrap] == mujoco.mjtWrap.mjWRAP_SITE:
            bodies.append(model.site_bodyid[model.wrap_objid[wrap]])
    return bodies
