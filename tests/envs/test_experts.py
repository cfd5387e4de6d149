import numpy as np
import pytest

from envs.config import Controller, EnvConfig, Variation
from envs.experts.disturbance import Disturbance
from envs.experts.motions import motion_to_action
from envs.experts.registry import make_expert
from envs.recording.episodes import record_expert_episode
from envs.registry import make_env
from envs.tasks import TASKS, Simulator

pytestmark = pytest.mark.sim


def solved(env, seeds, noise=0.0):
    return [record_expert_episode(env, seed, Disturbance(noise=noise)).success for seed in seeds]


def unseen(task, **config):
    return make_env(EnvConfig(task=task, cameras=[], **config))


@pytest.mark.parametrize("task", ["Lift", "Stack"])
def test_the_expert_solves_its_task(task):
    env = unseen(task)
    assert all(solved(env, range(5)))
    assert all(solved(env, range(2), noise=0.1))
    env.close()


@pytest.mark.parametrize(
    ("robot", "controller"), [("Sawyer", Controller.OSC_POSE), ("Panda", Controller.OSC_POSE_ABSOLUTE)]
)
def test_the_expert_works_with_other_robots_and_by_poses(robot, controller):
    env = unseen("Lift", robot=robot, controller=controller)
    assert all(solved(env, range(3), noise=0.1))
    env.close()


def test_a_pose_in_the_world_is_the_motion_that_it_stands_for():
    """The same first steps by either controller, and the recorded action is the pose that is asked for."""
    moved, placed = (unseen("Lift", controller=kind) for kind in (Controller.OSC_POSE, Controller.OSC_POSE_ABSOLUTE))
    for env in (moved, placed):
        env.reset(4)
    expert = make_expert(placed.config)
    expert.reset(placed, np.random.default_rng(0))
    poses = []
    for _ in range(6):
        motion = expert.act(placed)
        before = placed.privileged()
        pose = motion_to_action(placed, motion)
        poses.append(pose)
        np.testing.assert_allclose(pose[:3], before["eef_pos"] + 0.05 * motion[:3], atol=1e-6)
        assert pose[6] == motion[6]
        # The pose is told from where the hand was seen, up to a physics step (2 ms) before the controller begins.
        np.testing.assert_allclose(placed.step(pose).frame.state, moved.step(motion).frame.state, atol=3e-3)
    assert np.array_equal(motion_to_action(moved, motion), motion)
    # Turned by nearly half a turn, the hand is told to turn by the same way round all the time.
    assert np.linalg.norm(poses[0][3:6]) > 2.5
    assert np.abs(np.diff(poses, axis=0)[:, 3:6]).max() < 1.0
    for env in (moved, placed):
        env.close()


def test_sawyers_first_joint_does_not_rub_on_its_base():
    env = unseen("Lift", robot="Sawyer")
    env.reset(0)
    model, data = env._model, env._data  # type: ignore[attr-defined]
    touching = {model.geom(geom).name for contact in data.contact[: data.ncon] for geom in contact.geom}
    assert "robot0_base_col" not in touching
    env.close()


@pytest.mark.slow
@pytest.mark.parametrize(("task", "least"), [("Lift", 48), ("Stack", 47)])
@pytest.mark.parametrize("variation", list(Variation))
def test_the_expert_is_reliable_over_the_whole_spread(task, least, variation):
    env = unseen(task, start_spread=0.18, variation=variation)
    assert sum(solved(env, range(1000, 1050))) >= least
    env.close()


def test_noise_is_executed_but_not_recorded(lift):
    clean, noisy = record_expert_episode(lift, 1), record_expert_episode(lift, 1, Disturbance(noise=0.3))
    assert np.array_equal(clean.actions[0], noisy.actions[0])
    assert not np.array_equal(clean.state[1], noisy.state[1])
    assert len(clean) == len(clean.state) == len(clean.rewards) == len(clean.images["front"])
    assert clean.rewards[-1] == 1
    assert clean.rewards[:-1].sum() == 0


@pytest.mark.slow
@pytest.mark.parametrize(("task", "least"), [("PickPlaceCan", 19), ("NutAssemblySquare", 18), ("Door", 19)])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_the_experts_of_longer_tasks_are_reliable(task, least, noise):
    env = unseen(task)
    assert sum(solved(env, range(2000, 2020), noise)) >= least - 2 * (noise > 0)
    env.close()


@pytest.mark.slow
@pytest.mark.parametrize("controller", [Controller.OSC_POSE, Controller.OSC_POSE_ABSOLUTE])
def test_sawyer_opens_the_door_by_its_short_fingers(controller):
    env = unseen("Door", robot="Sawyer", controller=controller)
    assert sum(solved(env, range(2000, 2020), noise=0.1)) >= 18
    env.close()


def test_an_episode_of_metaworld_may_be_longer_than_its_own():
    env = make_env(EnvConfig(task="drawer-open-v3", cameras=[], horizon=502))
    env.reset(0)
    done = [env.step(np.zeros(4)).done for _ in range(502)]
    assert done == [False] * 501 + [True]
    env.close()


def test_metaworlds_marks_are_drawn_as_cortexbench_draws_them():
    env = make_env(EnvConfig(task="drawer-open-v3", cameras=["front"], image_size=128))
    red, green, blue = np.moveaxis(env.reset(0).images["front"], -1, 0)
    assert ((green > 150) & (red < 60) & (blue < 60)).sum() > 10, "the goal, a green ball"
    assert ((red > 200) & (green < 60) & (blue < 60)).sum() > 5, "the tip of a finger"
    env.close()


@pytest.mark.slow
@pytest.mark.parametrize("task", [name for name, known in TASKS.items() if known.simulator is Simulator.METAWORLD])
def test_metaworlds_policies_hold_success_at_the_last_step(task):
    env = unseen(task)
    assert sum(solved(env, range(4))) >= 3
    env.close()
