"""LIBERO's tasks, played by a stand-in with its interface: LIBERO cannot be installed beside pixio-robot."""

from __future__ import annotations

import contextlib
import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from envs.config import EnvConfig
from envs.registry import make_env
from envs.spec import max_episode_steps
from pixio_robot.errors import UserError

FILES = {
    "libero/__init__.py": "",
    "libero/libero/__init__.py": "",
    "libero/libero/benchmark.py": """
        import types
        import numpy as np

        class Suite:
            def get_task(self, number): return types.SimpleNamespace(language=f"do {number}")
            def get_task_bddl_file_path(self, number): return f"{number}.bddl"
            def get_task_init_states(self, number): return 100.0 * np.arange(50)[:, None] + np.arange(3)

        def get_benchmark(name):
            assert name == "libero_goal"
            return Suite
    """,
    "libero/libero/envs.py": """
        import types
        import numpy as np

        class OffScreenRenderEnv:
            def __init__(self, bddl_file_name, use_camera_obs, camera_heights, camera_widths):
                assert (bddl_file_name, use_camera_obs) == ("3.bddl", False)
                self.env, self.sim = types.SimpleNamespace(object_property_initializers=[]), self

            def seed(self, seed): self.seeded = seed

            def reset(self):  # every sampler draws, those of earlier resets too
                self.env.object_property_initializers.append("drawer")
                self.drawn = self.seeded + len(self.env.object_property_initializers)

            def set_init_state(self, state):
                self.at, self.rested = state, 0
                return self.seen()

            def step(self, action):
                self.rested += list(action) == [0, 0, 0, 0, 0, 0, -1]
                self.at = self.at + action[:3]
                return self.seen(), 0.5, False, {}

            def check_success(self): return self.at[0] % 100 > 1.5

            def seen(self):
                return {
                    "robot0_eef_pos": self.at,
                    "robot0_eef_quat": np.array([0.1, 0.2, 0.3, 9.0]),
                    "robot0_gripper_qpos": np.array([self.rested, self.drawn]),
                }

            def render(self, camera_name, width, height):  # the lowest row comes first
                rows = np.arange(height * width, dtype=np.uint8).reshape(height, width, 1).repeat(3, 2)
                return rows + 100 * (camera_name == "robot0_eye_in_hand")

            def close(self): pass
    """,
    "robosuite/__init__.py": "",
    "robosuite/utils/__init__.py": "",
    "robosuite/utils/transform_utils.py": """
        def quat2axisangle(quat):
            quat[3] = min(quat[3], 1)
            return quat[:3] * quat[3]
    """,
}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable]:
    """made(settings): an environment of a Python in which LIBERO seems to be installed."""
    for name, source in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(source))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with contextlib.ExitStack() as stack:

        def make(**settings):
            config = EnvConfig(task="libero:libero_goal/3", python=sys.executable, make={"image_size": 6} | settings)
            return stack.enter_context(contextlib.closing(make_env(config)))

        yield make


def test_a_task_is_played_from_libero_s_own_initial_states(made: Callable) -> None:
    env = made()
    assert (env.spec.task, env.spec.control_hz, max_episode_steps(env.config)) == ("do 3", 20, 300)
    assert env.spec.state_names[3] == "eef_axis_angle.x [rad]"
    for seed, state in ((7, 7), (7, 7), (53, 3)):
        begin = env.reset(seed, False).state
        np.testing.assert_allclose(begin, [100 * state, 100 * state + 1, 100 * state + 2, 0.1, 0.2, 0.3, 10, seed + 1])
    action = np.array([1, 0, 0, 0, 0, 0, 1])
    first, second = env.step(action, False), env.step(action, False)
    assert (first.success, first.reward) == (False, 0.5)
    assert second.success
    assert second.done
    assert second.frame.state[0] == 302


@pytest.mark.parametrize("mirrored", [False, True])
def test_images_are_upright(made: Callable, mirrored: bool) -> None:
    images = made(mirrored=mirrored).reset(0).images
    assert [(name, image.shape) for name, image in images.items()] == [
        ("agentview", (6, 6, 3)),
        ("eye_in_hand", (6, 6, 3)),
    ]
    assert images["agentview"][0, 0, 0] == (35 if mirrored else 30)
    assert images["eye_in_hand"][5, 0, 0] == (105 if mirrored else 100)


def test_its_question_is_explained(made: Callable, tmp_path: Path) -> None:
    (tmp_path / "libero/libero/__init__.py").write_text("input('Where are the data sets?')")
    with pytest.raises(UserError, match=r"asks a question when it is imported for the first time"):
        made()
