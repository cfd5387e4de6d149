"""An environment as somebody else may have it, painted by numpy: a dot that is to be pushed onto a target.

`gymnasium:painted:painted/Dot-v0` shows two pictures of two sizes and numbers in its observation, `Plain-v0` numbers
alone and what `render()` draws. `Worlds-v0` is `Dot-v0` as simulators of many worlds give it, `Limited-v0` one with a
time limit of its own. `wind` moves the dot as well: from numpy's global generator (`global`), from the clock
(`clock`), or by what earlier episodes left behind (`remembered`).
"""

import sys
import time

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import WrapperSpec
from gymnasium.vector.utils import batch_space

SPEED, NEAR = 0.05, 0.1


class Dot(gymnasium.Env):
    # `packages`, because finding the version of what no package holds takes each process most of a second.
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10, "packages": ["numpy"]}  # noqa: RUF012

    def __init__(self, render_mode=None, seen=True, width=32, wind="", reports="success"):
        self._reports = reports
        self.render_mode, self._seen, self._width, self._wind, self._left = render_mode, seen, width, wind, 0.0
        self._depth = np.ones((24, width, 1), np.float32)
        numbers = spaces.Box(0.0, 1.0, (2,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.observation_space = spaces.Box(0.0, 1.0, (4,), np.float32)
        if seen:
            pixels = {"top": spaces.Box(0, 255, (24, width, 3), np.uint8)}
            pixels["wrist"] = spaces.Box(0, 255, (16, 16, 3), np.uint8)
            self.observation_space = spaces.Dict(
                {
                    "pixels": spaces.Dict(pixels),
                    "agent": spaces.Dict({"pos": numbers}),
                    "target": numbers,
                    "depth": spaces.Box(0.0, 9.0, (24, width, 1), np.float32),
                }
            )

    def _picture(self, height, width):
        y, x = (np.arange(size) / size for size in (height, width))
        picture = np.full((height, width, 3), 40, np.uint8)
        for place, colour in ((self._target, (30, 200, 60)), (self._pos, (220, 50, 50))):
            picture[(np.abs(y - place[1])[:, None] < 0.1) & (np.abs(x - place[0])[None] < 0.1)] = colour
        return picture

    def _observation(self):
        pos, target = self._pos.astype(np.float32), self._target.astype(np.float32)
        if not self._seen:
            return np.concatenate([pos, target])
        pixels = {"top": self._picture(24, self._width), "wrist": self._picture(16, 16)}
        return {"pixels": pixels, "agent": {"pos": pos}, "target": target, "depth": self._depth.copy()}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._pos, self._target = self.np_random.uniform(0.1, 0.9, (2, 2))
        self._left += self._wind == "remembered"
        return self._observation(), {}

    def step(self, action):
        winds = {"global": np.random.normal, "clock": lambda: time.time_ns() % 997 / 997, "remembered": self._blow}
        self._pos = np.clip(self._pos + SPEED * np.asarray(action) + 0.01 * winds.get(self._wind, lambda: 0)(), 0, 1)
        distance = float(np.linalg.norm(self._pos - self._target))
        success = distance < NEAR
        return self._observation(), -distance, success, False, {self._reports: success}

    def _blow(self):
        return self._left

    def render(self):
        return self._picture(20, 30)


class OnDevice:
    """A batch like a tensor on a GPU, which NumPy cannot read."""

    def __init__(self, values):
        self._values = np.asarray(values)[None]

    def cpu(self):
        return self._values

    def __bool__(self):
        return bool(self._values)


def on_device(part):
    return {key: on_device(each) for key, each in part.items()} if isinstance(part, dict) else OnDevice(part)


class Worlds(Dot):
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    control_freq, robot_uids, control_mode = 10, "dot", "delta"

    def __init__(self, render_mode=None, num_envs=1, **settings):
        super().__init__(render_mode, **settings)
        self.num_envs = num_envs
        self.single_action_space, self.single_observation_space = self.action_space, self.observation_space
        self.observation_space = batch_space(self.observation_space, num_envs)

    def reset(self, *, seed=None, options=None):
        return on_device(super().reset(seed=seed)[0]), {}

    def step(self, action):
        *result, info = super().step(action)
        return (*(on_device(part) for part in result), on_device(info))

    def render(self):
        return OnDevice(super().render())


class OwnTimeLimit(gymnasium.Wrapper):
    """ManiSkill's, in place of Gymnasium's: it looks into the call of `make` for what to replace its own by."""

    def __init__(self, env, steps):
        super().__init__(env)
        asked = sys._getframe(1).f_locals["max_episode_steps"]
        self._limit, self._steps = steps if asked is None else asked, 0

    def step(self, action):
        self._steps += 1
        observation, reward, terminated, _, info = self.env.step(action)
        return observation, reward, terminated, self._steps >= self._limit, info


gymnasium.register("painted/Dot-v0", entry_point=Dot, max_episode_steps=40)
gymnasium.register("painted/Plain-v0", entry_point=Dot, max_episode_steps=40, kwargs={"seen": False})
gymnasium.register("painted/Robot-v0", entry_point=Dot, nondeterministic=True)
gymnasium.register("painted/Worlds-v0", entry_point=Worlds, max_episode_steps=40)
gymnasium.register(
    "painted/Limited-v0",
    entry_point=Dot,
    max_episode_steps=3,
    additional_wrappers=(WrapperSpec("OwnTimeLimit", "painted:OwnTimeLimit", {"steps": 3}),),
)
