import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from pixio_robot.errors import UserError


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        pytest.param("Lift", {"cameras": ["hand"]}, marks=pytest.mark.sim),
        pytest.param(
            "Lift", {"cameras": [], "controller": "osc_pose_absolute"}, marks=[pytest.mark.sim, pytest.mark.slow]
        ),
        pytest.param("Stack", {}, marks=[pytest.mark.sim, pytest.mark.slow]),
        ("TabletopPush", {"variation": "all"}),
        pytest.param("hammer", {}, marks=pytest.mark.slow),
    ],
)
def test_gymnasiums_checker_is_content(name, settings):
    env = gymnasium.make(f"envs:pixio_robot/{name}-v0", image_size=32, render_mode="rgb_array", **settings)
    check_env(env.unwrapped)
    observation, info = env.reset(seed=3)
    assert env.observation_space.contains(observation)
    assert info == {"seed": 3}
    observation, reward, terminated, truncated, _ = env.step(np.zeros(env.action_space.shape, np.float32))
    assert env.observation_space.contains(observation)
    assert (reward, terminated, truncated) == (0.0, False, False)
    env.close()


def test_the_prefix_alone_registers_it():
    code = "import gymnasium; gymnasium.make('envs:pixio_robot/TabletopReach-v0', image_size=32).reset(seed=0)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_names_are_told():
    with pytest.raises(UserError, match="CLUTTERED"):
        gymnasium.make("envs:pixio_robot/TabletopReach-v0", variation="clutered")
