"""Environments of gymnasium-robotics and dm_control, each against itself without our adapter. `scripts/test_adapters`
installs both packages, in a folder of their own, and runs this."""

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import flatten

from envs.config import EnvConfig, RenderQuality
from envs.registry import make_env
from envs.spec import max_episode_steps
from pixio_robot.cli.main import dispatch
from pixio_robot.files import read_json

FETCH, WALKER = "gymnasium:gymnasium_robotics:FetchReach-v4", "dm_control:walker/walk"

pytestmark = pytest.mark.slow


def actions(size):
    return np.random.default_rng(0).uniform(-1, 1, (20, size))


def check_that_states_are_restored(env):
    env.reset(5)
    for action in actions(env.spec.action_dim)[:5]:
        env.step(action, render=False)
    state = env.get_state()
    env.reset(6)
    env.reset_to(state)
    assert np.allclose(env.get_state(), state)


def test_gymnasium_robotics():
    pytest.importorskip("gymnasium_robotics")
    config = EnvConfig(task=FETCH, image_size=48, render_quality=RenderQuality.FULL)
    ours = make_env(config)
    theirs = gymnasium.make("FetchReach-v4", render_mode="rgb_array", width=48, height=48)
    assert "gymnasium_robotics 1." in ours.spec.simulator_version
    assert max_episode_steps(config) == 50
    frame, (observation, _) = ours.reset(3), theirs.reset(seed=3)
    assert np.abs(frame.images["front"].astype(int) - theirs.render()).mean() < 1.5
    for action in actions(4):
        assert np.array_equal(frame.state, flatten(theirs.observation_space, observation).astype(np.float32))
        result = ours.step(action, render=False)
        observation, reward, _, _, info = theirs.step(action.astype(np.float32))
        assert (result.reward, result.success) == (reward, bool(info["is_success"]))
        frame = result.frame
    check_that_states_are_restored(ours)
    ours.close()
    theirs.close()


def test_dm_control():
    suite = pytest.importorskip("dm_control.suite")
    config = EnvConfig(task=WALKER, image_size=48, cameras=["front", "side"])
    ours, theirs = make_env(config), suite.load("walker", "walk", task_kwargs={"random": 3})
    assert "dm-control 1." in ours.spec.simulator_version
    frame, theirs_now = ours.reset(3), theirs.reset()
    assert all(image.std() > 10 for image in frame.images.values())
    for action in actions(6):
        seen = np.concatenate([np.ravel(part) for part in theirs_now.observation.values()])
        assert np.array_equal(frame.state, seen.astype(np.float32))
        result, theirs_now = ours.step(action, render=False), theirs.step(action)
        assert (result.reward, result.success) == (theirs_now.reward, False)
        frame = result.frame
    check_that_states_are_restored(ours)
    ours.close()
    theirs.close()


@pytest.mark.parametrize(("package", "task"), [("gymnasium_robotics", FETCH), ("dm_control", WALKER)])
def test_evaluate_plays_it(package, task, tmp_path):
    pytest.importorskip(package)
    words = ["episodes=2", "num_slots=2", "workers=2", "videos=1", "env.horizon=10", f"out={tmp_path / 'out'}"]
    assert dispatch(["evaluate", f"env.task={task}", "checkpoint=random", *words]) == 0
    assert read_json(tmp_path / "out" / "summary.json")["episodes"] == 2
