"""MetaWorld's tasks under CortexBench's protocol (Majumdar et al. 2023): its camera, 500 steps, success at the last."""

# pyright: reportAttributeAccessIssue=false
# mujoco fills its namespace from a compiled module that pyright cannot read.

from __future__ import annotations

import warnings
from typing import Any

import mujoco
import numpy as np

from envs.config import CAMERAS, EnvConfig
from envs.mujoco_env import MujocoEnv
from envs.rendering.renderer import DEFAULT_GROUPS
from envs.seeding import global_seed
from envs.spec import make_env_spec, max_episode_steps
from envs.tasks import TASKS
from envs.validation import check_finite_vector
from pixio_robot.errors import UserError
from pixio_robot.types import Frame


def _make_metaworld_env(config: EnvConfig) -> Any:
    """MetaWorld's environment, with our camera in its model and a new random start at every reset."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    view = TASKS[config.task].view
    task_class = ALL_V3_ENVIRONMENTS[config.task]

    def initialize(self: Any) -> tuple[mujoco.MjModel, mujoco.MjData]:
        spec = mujoco.MjSpec.from_file(self.fullpath)
        spec.worldbody.add_camera(
            name=CAMERAS["front"],
            pos=view.eye,
            fovy=view.fov_y,
            mode=mujoco.mjtCamLight.mjCAMLIGHT_TARGETBODY,
            targetbody="tablelink",
        )
        model = spec.compile()
        # The model's collision geoms are in other groups.
        model.geom_group[np.isin(model.geom_group, DEFAULT_GROUPS)] = 1
        return model, mujoco.MjData(model)

    env = type(f"PixioRobot{task_class.__name__}", (task_class,), {"_initialize_simulation": initialize})()
    env._freeze_rand_vec, env.seeded_rand_vec = False, True
    env.max_path_length = max_episode_steps(config)  # beyond it, it refuses to step
    env._partially_observable = False  # the policies need the goal; the cached space would zero it
    env.__dict__.pop("sawyer_observation_space", None)
    env._set_task_called = True
    return env


class MetaworldEnv(MujocoEnv):
    """See `Environment` for the interface. An episode always lasts the whole horizon; `success` is that of each step.

    The state begins with the first four numbers of MetaWorld's observation: position and opening of the gripper.
    """

    def __init__(self, config: EnvConfig) -> None:
        from metaworld.policies import ENV_POLICY_MAP

        self.spec = make_env_spec(config)
        with global_seed(0):
            self._env = _make_metaworld_env(config)
        super().__init__(config, self._env.model, self._env.data)
        self._renderer.show_sites_and_sky()  # the fingers' marks and drawer-open's goal, as CortexBench shows
        self._policy = ENV_POLICY_MAP[config.task]()
        self._observation = np.zeros(39)

    def _start(self, seed: int) -> None:
        # `reset` uses the environment's generator, and in some tasks also numpy's global one.
        self._env._np_random = np.random.default_rng(seed)
        with global_seed(seed):
            self._observation, _ = self._env.reset()

    def get_state(self) -> np.ndarray:
        data = self._data
        parts = ([data.time], data.qpos, data.qvel, data.mocap_pos.reshape(-1), data.mocap_quat.reshape(-1))
        return np.concatenate(parts)

    def reset_to(self, state: np.ndarray, render: bool = True) -> Frame:
        model, data = self._model, self._data
        lengths = (1, model.nq, model.nv, 3 * model.nmocap, 4 * model.nmocap)
        parts = "time, positions, velocities, mocap positions, mocap quaternions"
        state = check_finite_vector(state, sum(lengths), f"The state of {self.config.task}", parts, UserError)
        time, qpos, qvel, pos, quat = np.split(state, np.cumsum(lengths)[:-1])
        data.mocap_pos[:], data.mocap_quat[:] = pos.reshape(-1, 3), quat.reshape(-1, 4)
        data.qacc_warmstart[:] = 0
        data.ctrl[:] = 0
        self._env.set_state(qpos, qvel)
        data.time = time[0]
        self._env.curr_path_length = 0
        self._env._prev_obs = self._env._get_curr_obs_combined_no_goal()
        self._observation = self._env._get_obs().astype(np.float64)
        return self._begin(render)

    def _advance(self, action: np.ndarray) -> tuple[float, bool, bool]:
        self._observation, _, _, _, info = self._env.step(np.clip(action, -1, 1).astype(np.float32))
        success = bool(info["success"])
        return float(success), success, False

    def scripted_action(self) -> np.ndarray:
        """The action of MetaWorld's own policy: float32 (4,)."""
        with warnings.catch_warnings():
            # It warns that its actions exceed the bounds; they are clipped below.
            warnings.simplefilter("ignore")
            action = self._policy.get_action(self._observation)
        return np.clip(action, -1, 1).astype(np.float32)

    def _state(self) -> np.ndarray:
        return np.concatenate([self._observation[:4], *self._object_state()])

    def privileged(self) -> dict[str, np.ndarray]:
        return {"eef_pos": self._env.get_endeff_pos().copy(), "eef_mat": np.eye(3)} | self._body_poses()

    def close(self) -> None:
        self._renderer.close()
        self._env.close()
