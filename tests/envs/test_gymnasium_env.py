import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs.registry import register_gymnasium

pytestmark = pytest.mark.sim


@pytest.mark.parametrize("task", ["Lift", "Stack"])
def test_gymnasiums_checker_is_content(task):
    register_gymnasium()
    env = gymnasium.make(f"pixio_robot/{task}-v0", image_size=32, cameras=["hand"], render_mode="rgb_array")
    check_env(env.unwrapped)
    observation, info = env.reset(seed=3)
    assert env.observation_space.contains(observation)
    assert info == {"seed": 3}
    observation, reward, terminated, truncated, _ = env.step(np.zeros(7, np.float32))
    assert (reward, terminated, truncated) == (0.0, False, False)
    env.close()
