"""A tiny deterministic world: a point walks on a line and must come near a goal drawn from the seed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from pixio_robot.types import CameraSpec, DemoSpec, Frame, StepResult

SIZE = 48
HORIZON = 20


def line_spec(**changes) -> DemoSpec:
    values = {
        "task": "Line",
        "robot": "Point",
        "simulator": "numpy",
        "simulator_version": "1",
        "controller": "velocity",
        "control_hz": 20.0,
        "cameras": {"front": CameraSpec(height=SIZE, width=SIZE)},
        "state_names": ("x [m]", "goal [m]"),
        "action_names": ("dx",),
    }
    return DemoSpec(**(values | changes))


class LinePool:
    """An in-process `EnvPool`. `lose` maps (seed, step) to how often the worker dies there; step 0 is the reset.

    With `goes_on` an episode does not end by its success, as MetaWorld's do not."""

    def __init__(
        self,
        num_slots: int,
        lose: Mapping[tuple[int, int], int] | None = None,
        spec: DemoSpec | None = None,
        goes_on: bool = False,
    ):
        self.goes_on = goes_on
        self.spec = spec or line_spec()
        self.num_slots = num_slots
        self.lose = dict(lose or {})
        self.worlds: dict[int, dict] = {}
        self.rendered = 0
        self.played: list[tuple[int, int]] = []

    def reset(self, seeds, render):
        frames, lost = {}, set()
        for slot, seed in seeds.items():
            goal = float(np.random.default_rng(seed).uniform(-1, 1))
            self.worlds[slot] = {"seed": seed, "x": 0.0, "goal": goal, "step": 0}
            self.played.append((slot, seed))
            if self._dies(slot):
                lost.add(slot)
            else:
                frames[slot] = self._frame(slot, render[slot])
        return frames, lost

    def step(self, actions, render):
        results, lost = {}, set()
        for slot, action in actions.items():
            world = self.worlds[slot]
            world["step"] += 1
            world["x"] += 0.2 * float(np.clip(action[0], -1, 1))
            if self._dies(slot):
                lost.add(slot)
                continue
            success = abs(world["x"] - world["goal"]) < 0.05
            done = (success and not self.goes_on) or world["step"] >= HORIZON
            reward = -abs(world["x"] - world["goal"])
            results[slot] = StepResult(self._frame(slot, render[slot]), reward, success, done)
        return results, lost

    def close(self) -> None:
        self.worlds.clear()

    def _dies(self, slot: int) -> bool:
        key = (self.worlds[slot]["seed"], self.worlds[slot]["step"])
        if self.lose.get(key, 0) == 0:
            return False
        self.lose[key] -= 1
        return True

    def _frame(self, slot: int, render: bool) -> Frame:
        world = self.worlds[slot]
        state = np.array([world["x"], world["goal"]], np.float32)
        if not render:
            return Frame({}, state)
        self.rendered += 1
        image = np.full((SIZE, SIZE, 3), 200, np.uint8)
        for value, colour in ((world["goal"], (30, 120, 60)), (world["x"], (30, 60, 160))):
            column = int(np.clip((value + 1.2) / 2.4, 0, 0.95) * SIZE)
            image[18:30, column : column + 3] = colour
        return Frame({"front": image}, state)


class SeekingActor:
    """Walks towards the goal with noise from the seed; looks at the image at every `look_every`-th step."""

    def __init__(self, look_every: int | None = None, noise: float = 0.3):
        self.look_every, self.noise = look_every, noise
        self.generators: dict[int, np.random.Generator] = {}
        self.steps: dict[int, int] = {}
        self.images_seen = 0

    def reset(self, slot, seed):
        self.generators[slot] = np.random.default_rng(seed + 1)
        self.steps[slot] = 0

    def needs_images(self, slot):
        return self.look_every is not None and self.steps[slot] % self.look_every == 0

    def act(self, frames):
        actions = {}
        for slot, frame in frames.items():
            wanted = self.needs_images(slot)
            assert bool(frame.images) == wanted  # exactly the images asked for, never the recorder's
            self.images_seen += wanted
            self.steps[slot] += 1
            x, goal = frame.state
            noise = self.generators[slot].normal(0, self.noise)
            actions[slot] = np.array([np.clip(4 * (goal - x), -0.8, 0.8) + noise], np.float32)
        return actions


@pytest.fixture(scope="session")
def line_pool():
    return LinePool


@pytest.fixture(scope="session")
def seeking_actor():
    return SeekingActor


@pytest.fixture(scope="session")
def make_spec():
    return line_spec
