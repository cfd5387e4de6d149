"""Frames for probes: whole, the same for the same settings, and with contact where there is contact."""

import numpy as np
import pytest

from envs.config import EnvConfig, Variation
from envs.experts.registry import make_expert
from envs.recording.ground_truth import GroundTruthConfig, gather_ground_truth, robot_touches_object
from envs.registry import make_env

pytestmark = pytest.mark.sim


def test_frames_are_whole_and_repeat_though_episodes_end_meanwhile():
    # Episodes of four steps end between any two frames.
    config = EnvConfig(task="TabletopPick", image_size=32, variation=Variation.ALL, horizon=4)
    what = GroundTruthConfig(episodes=3, frames_per_episode=2, steps_between=6)
    first, again = (gather_ground_truth(config, what) for _ in range(2))
    assert first.images.shape == (6, 32, 32, 3)
    assert first.depth.shape == first.classes.shape == (6, 32, 32)
    assert first.camera_axes.shape == (6, 3, 3)
    assert first.contact.shape == (6,)
    assert first.contact.dtype == bool
    assert {"cube", "camera"} <= set(first.positions)
    assert first.camera_axes.std(0).max() > 1e-3
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.contact, again.contact)


@pytest.mark.parametrize("task", ["TabletopPick", "Lift"])
def test_a_hand_that_holds_a_cube_touches_it_and_one_that_hovers_does_not(task):
    env = make_env(EnvConfig(task=task, cameras=[], image_size=32))
    expert = make_expert(env.config)
    env.reset(5, False)
    expert.reset(env, np.random.default_rng(0))
    assert not robot_touches_object(env)
    while not env.step(expert.act(env), False).done:
        pass
    assert robot_touches_object(env)  # the expert ends with the cube lifted
    env.close()
