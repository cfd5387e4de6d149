"""LIBERO's tasks (Liu et al. 2023, arXiv 2306.03310) with Gymnasium's interface: `libero_spatial/0` to `libero_90/89`.

Runs in the Python in which LIBERO is installed; importing it registers the tasks. State and actions have the names that
`pixio-robot data import` gives those of LIBERO's demonstrations.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

try:
    import gymnasium as gym
except ImportError:  # LIBERO's own requirements have gym
    import gym  # pyright: ignore[reportMissingImports]

STEPS = {"libero_spatial": 220, "libero_object": 280, "libero_goal": 300, "libero_10": 520, "libero_90": 400}
"""Suite -> control steps of an episode, as in the evaluation of OpenVLA (Kim et al. 2024, arXiv 2406.09246), slightly
more than the longest demonstration."""
TASKS = {suite: 90 if suite == "libero_90" else 10 for suite in STEPS}
SETTLING = 10
"""Control steps before an episode begins, in which the objects come to rest (as in the evaluation of OpenVLA)."""
CAMERAS = {"agentview": "agentview", "eye_in_hand": "robot0_eye_in_hand"}
"""Our names, those of LIBERO's demonstrations -> its cameras."""
_REST = np.array([0.0] * 6 + [-1.0])


class LiberoTask(gym.Env):  # pyright: ignore[reportGeneralTypeIssues]
    """Task `number` of a suite, in the order of its benchmark.

    Seeds choose among the initial states that LIBERO fixes for every task, 50 of them: seeds that follow each other
    give each state once. The observation is the state (8,) of the robot; `pictures` renders the images, uint8
    (image_size, image_size, 3) and upright, when they are needed. mirrored: exchange left and right, as in OpenVLA's
    and LeRobot's versions of the demonstrations, whose makers rotated the images instead of turning them over.
    """

    def __init__(self, suite: str, number: int, image_size: int = 128, mirrored: bool = False) -> None:
        benchmark, environment = _libero()
        tasks = benchmark.get_benchmark(suite)()
        self._size, self._mirrored = image_size, mirrored
        self._initial_states = np.asarray(tasks.get_task_init_states(number))
        self._env: Any = environment(
            bddl_file_name=tasks.get_task_bddl_file_path(number),
            use_camera_obs=False,
            camera_heights=image_size,
            camera_widths=image_size,
        )
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (8,), np.float64)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (7,), np.float32)
        self.metadata: dict[str, Any] = {
            "render_fps": 20,
            "robot": "Panda",
            "controller": "OSC_POSE delta",
            "initial_states": len(self._initial_states),
            "instruction": tasks.get_task(number).language,
            "packages": ["hf-libero", "robosuite", "mujoco"],
            "pictures": {camera: [image_size, image_size] for camera in CAMERAS},
            "state_names": [
                *[f"eef_pos.{axis} [m]" for axis in "xyz"],
                *[f"eef_axis_angle.{axis} [rad]" for axis in "xyz"],
                *[f"gripper.finger{finger} [m]" for finger in (1, 2)],
            ],
            "action_names": [
                *[f"eef_delta_pos.{axis} [0.05 m]" for axis in "xyz"],
                *[f"eef_delta_axis_angle.{axis} [0.5 rad]" for axis in "xyz"],
                "gripper [-1 opens, 1 closes]",
            ],
        }

    def reset(self, *, seed: int = 0, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        # Every reset adds LIBERO's samplers for the state of drawers and stoves once more, and draws from all of them,
        # after which the same seed places the furniture elsewhere.
        self._env.env.object_property_initializers.clear()
        self._env.seed(seed)
        self._env.reset()
        observation = self._env.set_init_state(self._initial_states[seed % len(self._initial_states)])
        for _ in range(SETTLING):
            observation = self._env.step(_REST)[0]
        return _state(observation), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        observation, reward, _, _ = self._env.step(np.asarray(action, np.float64))
        success = bool(self._env.check_success())
        return _state(observation), float(reward), success, False, {"is_success": success}

    def pictures(self) -> dict[str, np.ndarray]:
        images = {}
        for ours, theirs in CAMERAS.items():
            image = self._env.sim.render(camera_name=theirs, width=self._size, height=self._size)[::-1]  # lowest first
            images[ours] = np.ascontiguousarray(image[:, ::-1] if self._mirrored else image)
        return images

    def close(self) -> None:
        self._env.close()


def _state(observation: dict[str, np.ndarray]) -> np.ndarray:
    from robosuite.utils.transform_utils import quat2axisangle  # pyright: ignore[reportMissingImports]

    rotation = quat2axisangle(observation["robot0_eef_quat"].copy())  # it clips its argument in place
    return np.concatenate([observation["robot0_eef_pos"], rotation, observation["robot0_gripper_qpos"]])


def _libero() -> tuple[Any, Any]:
    """LIBERO's module of benchmarks and its environment class."""
    try:
        from libero.libero import benchmark  # pyright: ignore[reportMissingImports]
        from libero.libero.envs import OffScreenRenderEnv  # pyright: ignore[reportMissingImports]
    except EOFError as error:
        raise RuntimeError(
            "LIBERO asks a question when it is imported for the first time: in a terminal, answer it once with "
            "python -c 'import libero.libero' in its environment."
        ) from error
    return benchmark, OffScreenRenderEnv


for _suite, _count in TASKS.items():
    for _number in range(_count):
        gym.register(
            id=f"{_suite}/{_number}",
            entry_point=f"{Path(__file__).stem}:LiberoTask",
            kwargs={"suite": _suite, "number": _number},
            max_episode_steps=STEPS[_suite],
        )
