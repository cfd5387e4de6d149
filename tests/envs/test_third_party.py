"""What Gymnasium's own MuJoCo environments, which are always installed, show of `envs.third_party.base`."""

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.envs.mujoco.pusher_v5 import PusherEnv

from envs.config import EnvConfig, RenderQuality, Variation
from envs.experts.random_play import RandomPlay
from envs.experts.registry import make_expert
from envs.pool.worker_pool import make_pool
from envs.registry import make_env
from envs.rendering.renderer import Renderer
from envs.spec import action_bounds, make_env_spec, max_episode_steps
from pixio_robot.errors import UserError

PUSHER = "gymnasium:Pusher-v5"


def config(task=PUSHER, **settings):
    return EnvConfig(**{"task": task, "cameras": ["front"], "image_size": 48} | settings)


def test_its_numbers_are_the_environments_own():
    ours, theirs = make_env(config()), gymnasium.make("Pusher-v5")
    frame, (observation, _) = ours.reset(3), theirs.reset(seed=3)
    low, high = action_bounds(ours.config)
    assert np.array_equal(low, theirs.action_space.low)
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert np.array_equal(frame.state, observation.astype(np.float32))
        action = rng.uniform(low, high)
        result = ours.step(action, render=False)
        observation, reward, *_ = theirs.step(action.astype(np.float32))
        assert result.reward == reward
        frame = result.frame
    ours.close()
    theirs.close()


def test_the_horizon_is_the_environments_and_what_it_ends_is_over():
    assert max_episode_steps(config()) == 100
    assert max_episode_steps(config(horizon=7)) == 7
    env = make_env(config("gymnasium:InvertedPendulum-v5", cameras=[]))
    env.reset(0, False)
    steps = 0
    while not env.step(np.ones(1), False).done:
        steps += 1
    assert steps < 100  # the pole falls, and 1000 steps would be the horizon
    env.close()


def test_every_camera_of_the_model_can_be_looked_through():
    env = make_env(config("gymnasium:Ant-v5", cameras=["front", "track"], make={"camera_id": -1}))
    images = env.reset(0).images
    assert images["front"].std() > 10
    assert images["track"].std() > 10
    assert not np.array_equal(images["front"], images["track"])
    assert list(make_env_spec(EnvConfig(task="gymnasium:Ant-v5")).cameras) == ["front"]
    position, rotation = env.camera_pose("front")
    # It looks at the middle of the model, from above.
    assert position[2] > 1
    assert -rotation[2, 2] < 0
    env.close()
    with pytest.raises(UserError, match=r"'tarck'.*'track'"):
        make_env(config("gymnasium:Ant-v5", cameras=["tarck"]))


def test_a_restored_state_is_observed_with_its_contact_forces():
    env = make_env(config("gymnasium:Ant-v5", cameras=[]))
    env.reset(0)
    while not env.step(np.zeros(8), False).frame.state[27:].any():  # it falls, until it touches the floor
        pass
    assert env.reset_to(env.get_state()).state[27:].any()
    env.close()


def test_a_model_of_many_sites_is_drawn_whole():
    sites = "".join(f"<site pos='{0.01 * n} 0 -5' size='0.001' group='0'/>" for n in range(1500))
    goal = "<site name='goal' size='0.5' rgba='1 0 0 1' group='0'/>"
    camera = "<camera name='above' pos='0 0 3'/>"
    model = mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{camera}{sites}{goal}</worldbody></mujoco>")
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    renderer = Renderer(model, data, 48, RenderQuality.FULL)
    renderer.show_sites_and_sky()
    assert (renderer.render("above")[..., 0] > 100).sum() > 50
    renderer.close()


@pytest.mark.parametrize(
    ("task", "make"),
    [*((f"{name}-v5", {}) for name in ("HalfCheetah", "Ant", "Hopper", "Reacher")), ("Ant-v5", {"camera_id": 0})],
)
def test_front_is_the_view_of_its_own_render(task, make):
    theirs = gymnasium.make(task, render_mode="rgb_array", width=48, height=48, **make)
    ours = make_env(config(f"gymnasium:{task}", make=make, render_quality=RenderQuality.FULL))
    theirs.reset(seed=0)
    difference = ours.reset(0).images["front"].astype(int) - theirs.render()
    assert np.abs(difference).mean() < 1.5
    ours.close()
    theirs.close()


class WithGoal(PusherEnv):
    """Marks its goal as those of gymnasium-robotics do: only where it renders itself."""

    def _render_callback(self):
        self.model.body("goal").pos[:] = (0, 0, 5)
        self.data.qpos[:] = 1
        mujoco.mj_forward(self.model, self.data)


def test_marks_of_the_goal_are_shown_and_change_nothing():
    gymnasium.register("WithGoal-v0", entry_point=WithGoal, max_episode_steps=7)
    try:
        seen, unseen = (make_env(config("gymnasium:WithGoal-v0")) for _ in range(2))
    finally:
        del gymnasium.registry["WithGoal-v0"]
    seen.reset(0)
    unseen.reset(0, render=False)
    for _ in range(3):
        assert seen.privileged()["goal_pos"][2] == 5
        assert unseen.privileged()["goal_pos"][2] < 5
        first, second = seen.step(np.ones(7)), unseen.step(np.ones(7), render=False)
        np.testing.assert_array_equal(first.frame.state[:14], second.frame.state[:14])
    seen.close()
    unseen.close()


class OfMine(PusherEnv):
    """Of no package that is installed."""

    __module__ = "of_mine.tasks"


def test_an_environment_of_ones_own_needs_no_package():
    gymnasium.register("OfMine-v0", entry_point=OfMine, max_episode_steps=7)
    try:
        spec = make_env_spec(config("gymnasium:OfMine-v0"))
    finally:
        del gymnasium.registry["OfMine-v0"]
    assert spec.simulator_version.startswith("of_mine of unknown version, mujoco ")
    assert "gymnasium" in make_env_spec(config()).simulator_version


def test_a_pool_runs_it():
    with make_pool(config(image_size=32), 1, 2) as pool:
        frames, _ = pool.reset({0: 5, 1: 6}, {})
        results, lost = pool.step({slot: np.zeros(pool.spec.action_dim) for slot in frames}, {})
    assert not lost
    assert results[0].frame.images["front"].shape == (32, 32, 3)
    assert not np.array_equal(frames[0].state, frames[1].state)


def test_what_is_wrapped_around_a_model_is_kept():
    """It is then one that shows itself: only the bare model is drawn here."""

    class Tenfold(gymnasium.RewardWrapper):
        def reward(self, reward):
            return 10 * float(reward)

    def wrapped():
        return Tenfold(gymnasium.make("InvertedPendulum-v5", max_episode_steps=3))

    gymnasium.register("Tenfold-v0", wrapped)
    try:
        env = make_env(config("gymnasium:Tenfold-v0", cameras=[], image_size=96))
        with pytest.raises(UserError, match=r"cannot be rendered \(.*render_mode.*cameras=\[\]"):
            make_env_spec(config("gymnasium:Tenfold-v0"))
    finally:
        del gymnasium.registry["Tenfold-v0"]
    env.reset(0)
    results = [env.step(np.zeros(1)) for _ in range(3)]
    assert [result.reward for result in results] == [10.0, 10.0, 10.0]
    assert [result.done for result in results] == [False, False, True]
    env.close()


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ("gymnasium:Pusher-v55", "Pusher"),
        ("gymnasium:CartPole-v1", "Discrete actions"),
        ("gymnasium:no_such_package:Fetch-v1", "no_such_package"),
        ("dm_contrl:cartpole/balance", "dm_control"),
    ],
)
def test_what_cannot_be_run_is_named(task, says):
    with pytest.raises(UserError, match=says):
        make_env_spec(config(task))


def test_what_it_has_not_is_refused():
    with pytest.raises(UserError, match="variation"):
        config(variation=Variation.CAMERA)
    with pytest.raises(UserError, match="expert task"):
        make_expert(config())
    env = make_env(config(cameras=[]))
    with pytest.raises(UserError, match="Random play is only available for built-in tasks"):
        RandomPlay().reset(env, np.random.default_rng(0))
    env.close()
