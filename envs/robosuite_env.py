"""A robosuite task as an Environment: deterministic by seed, fast, and rendered only when asked."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np

from envs.config import CAMERAS, TASKS, EnvConfig
from envs.registry import spec_of
from envs.simulator import load_robosuite
from pixio_robot.errors import unknown_name
from pixio_robot.types import Frame, StepResult


@contextlib.contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    """robosuite draws from the global generators: seed them, and give them back as they were."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def _build(config: EnvConfig) -> Any:
    """robosuite's environment with our scene; it renders nothing and never ends by itself."""
    from robosuite.controllers import load_composite_controller_config
    from robosuite.environments.base import REGISTERED_ENVS

    from envs.scene import dress

    task_class = REGISTERED_ENVS[config.task]

    def edit_model_xml(self: Any, xml: str) -> str:
        return dress(task_class.edit_model_xml(self, xml), config)

    # A subclass, because robosuite takes XML processors only after it has built the model once.
    dressed = type(f"PixioRobot{config.task}", (task_class,), {"edit_model_xml": edit_model_xml})
    with _global_seed(0):
        return dressed(
            robots=config.robot,
            controller_configs=load_composite_controller_config(controller="BASIC", robot=config.robot),
            has_renderer=False,
            has_offscreen_renderer=False,
            use_camera_obs=False,
            use_object_obs=False,
            control_freq=config.control_hz,
            ignore_done=True,
            hard_reset=False,
        )


class RobosuiteEnv:
    """One task with one Panda under OSC_POSE; see `Environment` for the contract.

    As in robosuite, positions and pictures are those of the last physics substep's start, 2 ms before the
    end of the control step.
    """

    def __init__(self, config: EnvConfig) -> None:
        self.config = config
        self.spec = spec_of(config)
        load_robosuite()
        from envs.render import Renderer
        from envs.scene import Scene

        self._env = _build(config)
        sim = self._env.sim
        self._data = sim.data._data
        self._scene = Scene(config, sim)
        self._renderer = Renderer(sim.model._model, self._data, config.image_size, config.render_quality)
        robot = self._env.robots[0]
        self._grip_site = robot.eef_site_id["right"]
        self._fingers = np.asarray(robot._ref_gripper_joint_pos_indexes["right"])
        self._bodies = {name: sim.model.body_name2id(f"{name}_main") for name in TASKS[config.task].objects}
        self._control: Any = None
        self._steps = 0
        self._done = True

    def reset(self, seed: int, render: bool = True) -> Frame:
        from envs.control import ArmControl

        with _global_seed(seed):
            self._env.reset()
        self._renderer.textures_changed(self._scene.draw(seed))
        self._control = ArmControl(self._env)
        self._steps = 0
        self._done = False
        return self._frame(render)

    def step(self, action: np.ndarray, render: bool = True) -> StepResult:
        if self._done:
            raise ValueError("This episode is over (or none was started): call reset first.")
        action = np.asarray(action, np.float64)
        if action.shape != (self.spec.action_dim,):
            raise ValueError(f"The action must have the shape ({self.spec.action_dim},), not {action.shape}.")
        if not np.isfinite(action).all():
            raise ValueError(f"The action is not finite: {action}.")
        self._control.step(np.clip(action, -1, 1))
        self._steps += 1
        success = bool(self._env._check_success())
        self._done = success or self._steps >= self.config.steps
        return StepResult(self._frame(render), float(success), success, self._done)

    def _frame(self, render: bool) -> Frame:
        images = {name: self._renderer.render(CAMERAS[name]) for name in self.config.cameras} if render else {}
        return Frame(images, self._state())

    def _state(self) -> np.ndarray:
        rotation = self._data.site_xmat[self._grip_site].reshape(3, 3)
        parts = (self._data.site_xpos[self._grip_site], rotation[:, 0], rotation[:, 1], self._data.qpos[self._fingers])
        return np.concatenate(parts).astype(np.float32)

    def render(self, camera: str | None = None) -> np.ndarray:
        name = camera or (self.config.cameras or list(CAMERAS))[0]
        if name not in CAMERAS:
            raise unknown_name("camera", name, CAMERAS)
        return self._renderer.render(CAMERAS[name])

    def privileged(self) -> dict[str, np.ndarray]:
        poses = {
            "eef_pos": self._data.site_xpos[self._grip_site].copy(),
            "eef_mat": self._data.site_xmat[self._grip_site].reshape(3, 3).copy(),
        }
        for name, body in self._bodies.items():
            poses[f"{name}_pos"] = self._data.xpos[body].copy()
            poses[f"{name}_mat"] = self._data.xmat[body].reshape(3, 3).copy()
        return poses

    def close(self) -> None:
        self._renderer.close()
        self._env.close()
