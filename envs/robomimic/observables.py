"""Low-dimensional observations of robosuite's robots, computed from a model and its data without an environment.

Names and meanings are those of robosuite's observables, the same in versions 1.2 to 1.5: `robot0_eef_pos` is the
position of the grip site, but `robot0_eef_quat` (x, y, z, w) is the orientation of the hand body, which differs from
the site's.
"""

# pyright: reportAttributeAccessIssue=false
# mujoco fills its namespace from a compiled module that pyright cannot read.

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pixio_robot.errors import UserError, unknown_name

if TYPE_CHECKING:
    import mujoco

Observable = Callable[["mujoco.MjData"], np.ndarray]
"""Computes float64 (size,) from the current data."""

_KEY = re.compile(r"robot(\d+)_(?:(right|left)_)?(\w+)")
QUANTITIES = (
    *("joint_pos", "joint_pos_cos", "joint_pos_sin", "joint_vel"),
    *("eef_pos", "eef_quat", "eef_quat_site", "gripper_qpos", "gripper_qvel"),
)


def build_observables(model: mujoco.MjModel, keys: Sequence[str]) -> dict[str, Observable]:
    """A function for each of `keys`. Raises UserError for keys that robosuite or this model's robot does not have."""
    return {key: _build_observable(model, key) for key in keys}


def _build_observable(model: mujoco.MjModel, key: str) -> Observable:
    match = _KEY.fullmatch(key)
    if match is None or match[3] not in QUANTITIES:
        raise unknown_name(
            "observation to compute from the simulator's state", key, [f"robot0_{name}" for name in QUANTITIES]
        )
    robot, arm, quantity = match[1], match[2] or "right", match[3]
    if quantity.startswith(("joint", "gripper")):
        prefixes = [f"robot{robot}_"] if quantity.startswith("joint") else _gripper_prefixes(robot, arm)
        places, velocities = _joint_addresses(model, key, *prefixes)
        if quantity in ("joint_vel", "gripper_qvel"):
            return lambda data: data.qvel[velocities].copy()
        wave = {"joint_pos_cos": np.cos, "joint_pos_sin": np.sin}.get(quantity, np.copy)
        return lambda data: wave(data.qpos[places])
    if quantity == "eef_quat":
        hand = _find_index(key, {model.body(i).name: i for i in range(model.nbody)}, [f"robot{robot}_{arm}_hand"])
        return lambda data: data.xquat[hand][[1, 2, 3, 0]]
    sites = {model.site(i).name: i for i in range(model.nsite)}
    grip = _find_index(key, sites, [f"{prefix}grip_site" for prefix in _gripper_prefixes(robot, arm)])
    if quantity == "eef_pos":
        return lambda data: data.site_xpos[grip].copy()
    return lambda data: _quaternion_from_matrix(data.site_xmat[grip].reshape(3, 3))


def _gripper_prefixes(robot: str, arm: str) -> tuple[str, ...]:
    """Prefixes of the gripper's parts: since robosuite 1.5 (and before, for two-armed robots), and before."""
    return f"gripper{robot}_{arm}_", f"gripper{robot}_"


def _find_index(key: str, found: dict[str, int], names: Sequence[str]) -> int:
    for name in names:
        if name in found:
            return found[name]
    raise UserError(f"{key} cannot be computed: the demonstration's model_file has no {' or '.join(names)}.")


def _joint_addresses(model: mujoco.MjModel, key: str, *prefixes: str) -> tuple[np.ndarray, np.ndarray]:
    """Indices of positions and velocities of the joints with the first prefix that matches any."""
    for prefix in prefixes:
        joints = [i for i in range(model.njnt) if model.joint(i).name.startswith(prefix)]
        if joints:
            return model.jnt_qposadr[joints], model.jnt_dofadr[joints]
    raise UserError(f"{key} cannot be computed: the demonstration's model_file has no joint {prefixes[0]}*.")


def _quaternion_from_matrix(rotation: np.ndarray) -> np.ndarray:
    """Quaternion (x, y, z, w) of a rotation (3, 3), with w >= 0 as in robosuite."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(rotation).as_quat(canonical=True)
