"""`object_state`: the poses of the objects in the state, for policies without cameras."""

import numpy as np
import pytest

from envs.config import EnvConfig
from envs.registry import make_env
from envs.spec import make_env_spec
from envs.tasks import TASKS


@pytest.mark.parametrize("task", ["Stack", "Door", "TabletopPush", "hammer-v3"])
def test_the_state_ends_with_the_pose_of_every_object(task):
    env = make_env(EnvConfig(task=task, cameras=[], object_state=True))
    without = make_env_spec(EnvConfig(task=task, cameras=[])).state_dim
    frames = [env.reset(3)]
    rng = np.random.default_rng(0)
    for _ in range(4):
        frames.append(env.step(rng.uniform(-1, 1, env.spec.action_dim)).frame)
    known = env.privileged()
    named = dict(zip(env.spec.state_names, frames[-1].state, strict=True))
    for name in TASKS[task].bodies:
        position = [named[f"{name}_pos.{axis} [m]"] for axis in "xyz"]
        columns = [[named[f"{name}_rot6d.{column}{axis} [1]"] for axis in "xyz"] for column in "xy"]
        np.testing.assert_allclose(position, known[f"{name}_pos"], atol=1e-6)
        np.testing.assert_allclose(columns, known[f"{name}_mat"][:, :2].T, atol=1e-6)
    assert all(frame.state.dtype == np.float32 for frame in frames)
    assert env.spec.state_dim == without + 9 * len(TASKS[task].bodies)
    env.close()


def test_the_rest_of_the_state_and_the_episode_stay_as_they_are():
    plain, more = (make_env(EnvConfig(task="TabletopPick", cameras=[], object_state=on)) for on in (False, True))
    for seed in range(3):
        np.testing.assert_array_equal(plain.reset(seed).state, more.reset(seed).state[: plain.spec.state_dim])
        for action in np.random.default_rng(seed).uniform(-1, 1, (5, 4)):
            before, after = plain.step(action), more.step(action)
            np.testing.assert_array_equal(before.frame.state, after.frame.state[: plain.spec.state_dim])
    plain.close()
    more.close()


def test_a_policy_of_one_does_not_pass_for_the_other():
    plain, more = (make_env_spec(EnvConfig(task="Lift", object_state=on)) for on in (False, True))
    assert plain.differences(more)[0].startswith("state_names: unexpected cube_pos.x [m], cube_pos.y [m]")
    assert more.differences(plain)[0].startswith("state_names: missing cube_pos.x [m]")
