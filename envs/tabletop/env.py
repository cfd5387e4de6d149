"""Our own lightweight MuJoCo tasks: reach, push and pick with a floating gripper (models in `models/`)."""

# pyright: reportAttributeAccessIssue=false
# mujoco fills its namespace from a compiled module that pyright cannot read.

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import mujoco
import numpy as np

from envs.config import PHYSICS_HZ, EnvConfig, Variation
from envs.mujoco_env import MujocoEnv
from envs.rendering.scene import SceneRandomiser, add_camera, add_distractors, add_table_texture
from envs.spec import make_env_spec
from envs.tasks import TASKS, Simulator
from envs.validation import check_finite_vector
from pixio_robot.errors import UserError
from pixio_robot.types import Frame

MODELS = Path(__file__).parent / "models"
DELTA_POS = 0.02
"""Metres per step for an action of 1."""

REACH_LOW, REACH_HIGH = np.array((-0.25, -0.25, 0.012)), np.array((0.25, 0.25, 0.30))
"""The box (m) in which the gripper can move."""

CUBE_HALF = 0.02
FINGERS_OPEN, FINGERS_CLOSED = 0.035, -0.01
REACHED, PUSHED, LIFTED = 0.02, 0.025, 0.08
"""Success thresholds (m): distance of fingertips to ball; distance of cube to disc; height of cube above the table."""


def tabletop_model(config: EnvConfig) -> mujoco.MjModel:
    """The compiled model of a tabletop task, with the camera and the variation's geoms."""
    name = config.task.removeprefix("Tabletop").lower()
    base, task = (ElementTree.parse(MODELS / f"{file}.xml").getroot() for file in ("tabletop", name))
    world, asset, extra = base.find("worldbody"), base.find("asset"), task.find("worldbody")
    assert world is not None
    assert asset is not None
    assert extra is not None
    world.extend(extra)
    add_camera(world, TASKS[config.task].view)
    if config.variation.covers(Variation.TEXTURES):
        add_table_texture(asset)
        for geom in world.iter("geom"):
            if geom.get("name") == "table_visual":
                geom.set("material", "table_look")
                geom.attrib.pop("rgba")
    if config.variation.covers(Variation.DISTRACTORS):
        add_distractors(world)
    return mujoco.MjModel.from_xml_string(ElementTree.tostring(base, encoding="unicode"))


def sample_start_poses(config: EnvConfig, seed: int) -> dict[str, np.ndarray]:
    """Initial poses of the task's bodies for the seed: body -> position (m) and, for the cube, its quaternion."""
    rng = np.random.default_rng([seed, 0])
    spread = config.start_spread
    positions = {}
    if config.task != "TabletopReach":
        turn = rng.uniform(-np.pi / 4, np.pi / 4) if config.task == "TabletopPush" else rng.uniform(-0.35, 0.35)
        quaternion = (np.cos(turn / 2), 0, 0, np.sin(turn / 2))
        positions["cube"] = np.array((*rng.uniform(-spread, spread, 2), CUBE_HALF, *quaternion))
    if config.task == "TabletopReach":
        positions["target"] = np.array((*rng.uniform(-spread, spread, 2), rng.uniform(0.03, 0.22)))
    elif config.task == "TabletopPush":
        for _ in range(1000):
            target = rng.uniform(-spread, spread, 2)
            if np.linalg.norm(target - positions["cube"][:2]) > min(0.07, spread):
                break
        positions["target"] = np.array((*target, 0.001))
    return positions


def set_start_state(config: EnvConfig, seed: int, model: mujoco.MjModel, data: mujoco.MjData) -> None:
    """Reset the data to the start of the episode with that seed."""
    mujoco.mj_resetData(model, data)
    data.ctrl[:] = FINGERS_OPEN
    data.qpos[[model.joint(f"finger{i}").qposadr[0] for i in (1, 2)]] = FINGERS_OPEN
    for name, values in sample_start_poses(config, seed).items():
        if name == "target":
            data.mocap_pos[model.body_mocapid[model.body(name).id]] = values
        else:
            start = model.joint(name).qposadr[0]
            data.qpos[start : start + 7] = values
    mujoco.mj_forward(model, data)


def is_success(task: str, eef: np.ndarray, cube: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Whether the task is solved, for positions (..., 3) in metres of gripper, cube and target."""
    if task == "TabletopReach":
        return np.linalg.norm(eef - target, axis=-1) < REACHED
    if task == "TabletopPush":
        return np.linalg.norm((cube - target)[..., :2], axis=-1) < PUSHED
    return cube[..., 2] > LIFTED + CUBE_HALF


class TabletopEnv(MujocoEnv):
    """See `Environment` for the interface. The gripper points down and does not rotate; its fingers close along x."""

    def __init__(self, config: EnvConfig) -> None:
        self.spec = make_env_spec(config)
        model = tabletop_model(config)
        super().__init__(config, model, mujoco.MjData(model))
        self._scene = SceneRandomiser(config, model, self._data)
        self._grip = model.site("grip").id
        self._mocap = model.body_mocapid[model.body("hand_target").id]
        self._fingers = np.array([model.joint(f"finger{i}").qposadr[0] for i in (1, 2)])
        self._substeps = PHYSICS_HZ[Simulator.TABLETOP] // config.control_hz

    def _start(self, seed: int) -> None:
        set_start_state(self.config, seed, self._model, self._data)
        self._renderer.mark_textures_changed(self._scene.randomise(seed))

    def get_state(self) -> np.ndarray:
        return np.concatenate([[self._data.time], self._data.qpos, self._data.qvel, self._data.mocap_pos.reshape(-1)])

    def reset_to(self, state: np.ndarray, render: bool = True) -> Frame:
        model, data = self._model, self._data
        lengths = (1, model.nq, model.nv, 3 * model.nmocap)
        what = f"The state of {self.config.task} at variation {self.config.variation.value}"
        parts = "time, positions, velocities, mocap positions"
        state = check_finite_vector(state, sum(lengths), what, parts, UserError)
        time, qpos, qvel, mocap = np.split(state, np.cumsum(lengths)[:-1])
        data.time = time[0]
        data.qpos[:], data.qvel[:], data.mocap_pos[:] = qpos, qvel, mocap.reshape(-1, 3)
        data.qacc_warmstart[:] = 0
        data.ctrl[:] = data.qpos[self._fingers]
        mujoco.mj_forward(model, data)
        return self._begin(render)

    def _advance(self, action: np.ndarray) -> tuple[float, bool, bool]:
        action = np.clip(action, -1, 1)
        data = self._data
        goal = data.site_xpos[self._grip] + DELTA_POS * action[:3]
        data.mocap_pos[self._mocap] = np.clip(goal, REACH_LOW, REACH_HIGH)
        data.ctrl[:] = FINGERS_CLOSED if action[3] > 0 else FINGERS_OPEN
        mujoco.mj_step(self._model, data, self._substeps)
        # The observation shows the positions after the last substep.
        mujoco.mj_kinematics(self._model, data)
        mujoco.mj_camlight(self._model, data)
        zeros = np.zeros(3)
        where = {name: data.xpos[body] for name, body in self._body_ids.items()}
        cube, target = where.get("cube", zeros), where.get("target", zeros)
        success = bool(is_success(self.config.task, data.site_xpos[self._grip], cube, target))
        return float(success), success, success

    def _state(self) -> np.ndarray:
        gripper = (self._data.site_xpos[self._grip], self._data.qpos[self._fingers])
        return np.concatenate([*gripper, *self._object_state()])

    def privileged(self) -> dict[str, np.ndarray]:
        return self._eef_pose(self._grip) | self._body_poses()

    def close(self) -> None:
        self._renderer.close()
