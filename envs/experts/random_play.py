"""Random but smooth motion of the hand: between random positions, often down to the objects, opening and closing."""

from __future__ import annotations

import numpy as np

from envs.experts.motions import DELTA_ROT, check_controller, rotation_vector
from envs.registry import Environment
from envs.tasks import TASKS
from pixio_robot.errors import UserError

PLAY_STREAM = 3
"""Random stream of an episode, distinct from those of `envs.rendering.scene`."""


class RandomPlay:
    """Chooses a random target for the gripper about every second and moves there."""

    def reset(self, env: Environment, rng: np.random.Generator) -> None:
        if env.config.task not in TASKS:
            raise UserError(f"Random play is only available for built-in tasks, not for task={env.config.task}.")
        check_controller(env.config)
        self._rng = rng
        task = TASKS[env.config.task]
        self._objects, self._surface = list(task.bodies), np.array(task.surface)
        # A gripper that cannot rotate has three motion dimensions, an arm six.
        self._turns = env.spec.action_dim >= 6
        self._left = 0
        self._speed = np.zeros(3)

    def act(self, env: Environment) -> np.ndarray:
        poses, rng = env.privileged(), self._rng
        if self._left == 0:
            self._left = int(rng.integers(12, 30))
            self._goal = self._surface + rng.uniform((-0.15, -0.18, 0.03), (0.15, 0.18, 0.26))
            if rng.random() < 0.5 and self._objects:
                self._goal = poses[f"{rng.choice(self._objects)}_pos"] + rng.normal(0, (0.03, 0.03, 0.04))
                self._goal[2] = max(self._goal[2], self._surface[2] + 0.012)
            self._gripper = float(rng.choice((-1.0, 1.0)))
            self._yaw = rng.uniform(-0.9, 0.9)
            tilt = rng.normal(0, 0.12, 2)
            self._down = np.array((*tilt, -1.0)) / np.linalg.norm((*tilt, 1.0))
        self._left -= 1
        x = np.array((-np.sin(self._yaw), np.cos(self._yaw), 0.0))
        x -= self._down * (x @ self._down)
        x /= np.linalg.norm(x)
        rotation = np.stack([x, np.cross(self._down, x), self._down], axis=1)
        turn = np.clip(rotation_vector(rotation @ poses["eef_mat"].T), -0.15, 0.15) / DELTA_ROT
        pull = np.clip(6.0 * (self._goal - poses["eef_pos"]), -0.75, 0.75)
        self._speed += 0.35 * (pull - self._speed)
        parts = [self._speed, *([turn] if self._turns else []), [self._gripper]]
        # The arm in Wipe has no gripper to open.
        return np.clip(np.concatenate(parts)[: env.spec.action_dim], -1, 1).astype(np.float32)
