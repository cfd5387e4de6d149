import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs.gymnasium_env import GymnasiumEnv
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


def test_environments_of_other_packages():
    """As lerobot opens them: `--env.settings=[task=gymnasium:...]`."""
    env = GymnasiumEnv(task="gymnasium:Reacher-v5", image_size=32)
    check_env(env)
    env.reset(seed=0)
    ends = [env.step(env.action_space.sample())[2:4] for _ in range(50)]
    assert ends == [(False, False)] * 49 + [(False, True)]
    env.close()


def test_unknown_names_are_told():
    with pytest.raises(UserError, match="Did you mean 'cluttered'"):
        gymnasium.make("envs:pixio_robot/TabletopReach-v0", variation="clutered")


def test_films_run_at_the_rate_of_control():
    env = gymnasium.make("envs:pixio_robot/TabletopReach-v0", image_size=32, control_hz=10)
    assert env.metadata["render_fps"] == env.unwrapped.metadata["render_fps"] == 10
    env.close()


def test_gymnasium_steps_many_in_processes_of_its_own():
    # In a fresh process, as a user has it: what forks after drawing with OpenGL hangs, with any environment.
    code = (
        "import gymnasium, numpy as np\n"
        "envs = gymnasium.make_vec('envs:pixio_robot/TabletopPick-v0', 2, 'async', image_size=32)\n"
        "seen, _ = envs.reset(seed=[4, 5])\n"
        "assert seen['front'].shape == (2, 32, 32, 3)\n"
        "assert (seen['front'][0] != seen['front'][1]).any()\n"
        "assert envs.step(np.zeros((2, 4), np.float32))[1].tolist() == [0, 0]\n"
        "envs.close()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=250)
