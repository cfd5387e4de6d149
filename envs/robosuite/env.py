"""A robosuite task as an Environment: deterministic given the seed, fast, and rendered only on request."""

# pyright: reportAttributeAccessIssue=false
# mujoco fills its namespace from a compiled module that pyright cannot read.

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from envs.config import DEFAULT_SPREAD_M, MIN_PICK_PLACE_SPREAD_M, Controller, EnvConfig
from envs.mujoco_env import MujocoEnv
from envs.rendering.scene import SceneRandomiser, apply_appearance
from envs.robosuite.controller import DefaultController, FastOscController, reset_controllers
from envs.seeding import global_seed
from envs.simulator_imports import load_robosuite
from envs.spec import action_bounds, make_env_spec
from envs.tasks import TASKS
from envs.validation import check_finite_vector
from pixio_robot.errors import UserError
from pixio_robot.types import Frame


def _make_robosuite_env(config: EnvConfig) -> Any:
    """robosuite's environment with our scene; it neither renders nor terminates."""
    from robosuite.controllers import load_composite_controller_config, load_part_controller_config
    from robosuite.environments.base import REGISTERED_ENVS

    task_class = REGISTERED_ENVS[config.task]

    def edit_model_xml(self: Any, xml: str) -> str:
        return apply_appearance(task_class.edit_model_xml(self, xml), config)

    # A subclass, because robosuite accepts XML processors only after it has built the model once.
    styled_class = type(f"PixioRobot{config.task}", (task_class,), {"edit_model_xml": edit_model_xml})
    controllers: Any = load_composite_controller_config(controller="BASIC", robot=config.robot)
    arm = controllers["body_parts"]["right"]
    if config.controller is Controller.OSC_POSE_ABSOLUTE:
        arm["input_type"] = "absolute"
    elif config.controller is Controller.JOINT_POSITION:
        joints: Any = load_part_controller_config(default_controller="JOINT_POSITION")
        controllers["body_parts"]["right"] = joints | {"gripper": arm["gripper"]}
    with global_seed(0):
        env = styled_class(
            robots=config.robot,
            controller_configs=controllers,
            has_renderer=False,
            has_offscreen_renderer=False,
            use_camera_obs=False,
            use_object_obs=False,
            control_freq=config.control_hz,
            ignore_done=True,
            hard_reset=False,
        )
    if not TASKS[config.task].cubes:
        if config.start_spread < MIN_PICK_PLACE_SPREAD_M and getattr(env, "single_object_mode", 0):
            _allow_overlaps(env.placement_initializer)
        _scale_placement_ranges(getattr(env, "placement_initializer", None), config.start_spread / DEFAULT_SPREAD_M)
    return env


def _allow_overlaps(sampler: Any) -> None:
    """Let the objects of robosuite's placement sampler overlap: a task with a single object removes all others, but
    only after it has found a place for each. Their radii are taken off the ranges once, as the sampler would turn a
    range that is narrower than an object inside out."""
    for part in getattr(sampler, "samplers", {}).values():
        _allow_overlaps(part)
    if hasattr(sampler, "x_range") and sampler.ensure_object_boundary_in_range:
        radius = max(item.horizontal_radius for item in sampler.mujoco_objects)
        for name in ("x_range", "y_range"):
            low, high = getattr(sampler, name)
            setattr(sampler, name, [low + radius, high - radius])
        sampler.ensure_object_boundary_in_range = False
    sampler.ensure_valid_placement = False


def _scale_placement_ranges(sampler: Any, share: float) -> None:
    """Shrink the ranges of robosuite's placement sampler to the given fraction, keeping their centres."""
    for part in getattr(sampler, "samplers", {}).values():
        _scale_placement_ranges(part, share)
    for name in ("x_range", "y_range"):
        if hasattr(sampler, name):
            low, high = getattr(sampler, name)
            middle, half = (low + high) / 2, share * (high - low) / 2
            setattr(sampler, name, [middle - half, middle + half])


_HANDLES = {"square_nut_handle": "SquareNut_handle_site", "door_handle": "Door_handle"}
"""Our names of the handles of nut and door -> their sites."""


class RobosuiteEnv(MujocoEnv):
    """One task with one arm; see `Environment` for the interface.

    As in robosuite, positions and images are from the start of the last physics substep, 2 ms before the end of the
    control step.
    """

    def __init__(self, config: EnvConfig) -> None:
        self.spec = make_env_spec(config)
        load_robosuite()
        self._env = _make_robosuite_env(config)
        model, data = self._env.sim.model._model, self._env.sim.data._data
        super().__init__(config, model, data)
        self._scene = SceneRandomiser(config, model, data)
        robot = self._env.robots[0]
        self._grip_site = robot.eef_site_id["right"]
        self._fingers = np.asarray(robot._ref_gripper_joint_pos_indexes["right"], int)
        sites = {model.site(index).name: index for index in range(model.nsite)}
        self._handles = {name: sites[site] for name, site in _HANDLES.items() if site in sites}
        self._low, self._high = action_bounds(config)
        self._control: Any = None

    def _start(self, seed: int) -> None:
        from robosuite.utils.errors import RandomizationError

        try:
            with global_seed(seed):
                self._env.reset()
        except RandomizationError as error:
            raise UserError(
                f"robosuite finds no place for all objects of {self.config.task} at seed {seed} with "
                f"start_spread={self.config.start_spread}: raise it, to at most {DEFAULT_SPREAD_M}."
            ) from error
        self._renderer.mark_textures_changed(self._scene.randomise(seed))

    def _begin(self, render: bool) -> Frame:
        joints = self.config.controller is Controller.JOINT_POSITION
        self._control = DefaultController(self._env) if joints else FastOscController(self._env)
        return super()._begin(render)

    def get_state(self) -> np.ndarray:
        return np.concatenate([[self._data.time], self._data.qpos, self._data.qvel])

    def reset_to(self, state: np.ndarray, render: bool = True) -> Frame:
        what, parts = f"The state of {self.config.task} with {self.config.robot}", "time, positions, velocities"
        state = check_finite_vector(state, 1 + self._model.nq + self._model.nv, what, parts, UserError)
        data = self._data
        data.time = state[0]
        data.qpos[:] = state[1 : 1 + self._model.nq]
        data.qvel[:] = state[1 + self._model.nq :]
        # What is not part of the state is reset: solver, actuators, controllers and the gripper's ramp.
        data.qacc_warmstart[:] = 0
        data.ctrl[:] = 0
        data.act[:] = 0
        mujoco.mj_forward(self._model, data)
        reset_controllers(self._env)
        return self._begin(render)

    def _advance(self, action: np.ndarray) -> tuple[float, bool, bool]:
        action = np.clip(action, self._low, self._high)
        absolute = self.config.controller is Controller.OSC_POSE_ABSOLUTE
        self._control.step(self._control.to_base_frame(action) if absolute else action)
        if self.config.task == "Wipe":
            # robosuite takes away the dirt, and counts it, while it computes the reward.
            self._env.reward()
        success = bool(self._env._check_success())
        return float(success), success, success

    def _state(self) -> np.ndarray:
        rotation = self._data.site_xmat[self._grip_site].reshape(3, 3)
        pose = (self._data.site_xpos[self._grip_site], rotation[:, 0], rotation[:, 1])
        return np.concatenate([*pose, self._data.qpos[self._fingers], *self._object_state()])

    def privileged(self) -> dict[str, np.ndarray]:
        handles = {f"{name}_pos": self._data.site_xpos[site].copy() for name, site in self._handles.items()}
        return self._eef_pose(self._grip_site) | self._body_poses() | handles

    def close(self) -> None:
        self._renderer.close()
        self._env.close()
