from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from envs.config import EnvConfig, Variation
from envs.experts.disturbance import Disturbance
from envs.recording.episodes import record_expert_episode
from envs.registry import make_env
from envs.tabletop.env import is_success, sample_start_poses
from pixio_robot.errors import UserError

TASKS = ("TabletopReach", "TabletopPush", "TabletopPick")


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_the_expert_solves_its_task(task, noise):
    env = make_env(EnvConfig(task=task, cameras=[]))
    assert all(record_expert_episode(env, seed, Disturbance(noise=noise)).success for seed in range(40))
    env.close()


def test_depth_and_pose_of_the_camera_put_the_cube_where_it_is():
    env = make_env(EnvConfig(task="TabletopPush", image_size=128, cameras=["front"]))
    fov = np.radians(env.spec.cameras["front"].fov_y_degrees)
    for seed in range(3):
        env.reset(seed)
        depth, classes = env.render_depth(), env.render_segmentation()
        rows, columns = np.nonzero(classes == env.segmentation_names().index("cube"))
        assert len(rows) > 20
        focal = 64 / np.tan(fov / 2)
        z = depth[rows, columns]
        seen = np.stack([(columns + 0.5 - 64) / focal * z, -(rows + 0.5 - 64) / focal * z, -z], axis=1)
        position, rotation = env.camera_pose()
        points = seen @ rotation.T + position
        cube = env.privileged()["cube_pos"]
        # Points of the surface lie within half the cube's diagonal of its middle, and reach its top.
        assert np.linalg.norm(points - cube, axis=1).max() < 0.02 * np.sqrt(3) + 0.004
        assert abs(points[:, 2].max() - 0.04) < 0.003
    env.close()


@pytest.mark.parametrize("task", TASKS)
def test_a_step_shows_the_state_that_it_leaves_and_takes_no_larger_action_than_1(task):
    env = make_env(EnvConfig(task=task, image_size=32, object_state=True))
    for action in ((3.0, -2.0, 0.4, 1.0), (-0.5, 5.0, -7.0, -1.0)):
        env.reset(4)
        for _ in range(3):
            shown = env.step(np.array(action)).frame
        left = env.get_state()
        again = env.reset_to(left)
        np.testing.assert_allclose(shown.state, again.state, atol=1e-6)
        for name, image in shown.images.items():
            assert np.abs(image.astype(int) - again.images[name]).max() <= 2, name
        env.reset(4)
        for _ in range(3):
            env.step(np.clip(action, -1, 1))
        assert np.array_equal(env.get_state(), left)
    env.close()


def test_a_task_is_solved_from_its_threshold_on():
    at, origin = np.array, np.zeros(3)
    for task, inside, outside in (
        ("TabletopReach", (at((0, 0, 0.019)), origin, origin), (at((0, 0, 0.021)), origin, origin)),
        ("TabletopPush", (origin, at((0.024, 0, 0.5)), origin), (origin, at((0.026, 0, 0)), origin)),
        ("TabletopPick", (origin, at((0, 0, 0.101)), origin), (origin, at((0, 0, 0.099)), origin)),
    ):
        assert is_success(task, *inside)
        assert not is_success(task, *outside)


def test_the_cube_starts_beside_the_disc():
    starts = [sample_start_poses(EnvConfig(task="TabletopPush", cameras=[]), seed) for seed in range(200)]
    assert min(np.linalg.norm(each["cube"][:2] - each["target"][:2]) for each in starts) > 0.07


def test_each_variation_changes_what_is_seen_and_nothing_else():
    frames, poses = {}, {}
    for level in Variation:
        env = make_env(EnvConfig(task="TabletopPush", image_size=48, cameras=["front"], variation=level))
        frames[level] = env.reset(5).images["front"].astype(int)
        poses[level] = env.privileged()["cube_pos"]
        env.close()
    for level in Variation:
        assert np.array_equal(poses[level], poses[Variation.NONE])
        assert (level is Variation.NONE) == np.array_equal(frames[level], frames[Variation.NONE])


def test_one_look_seed_is_one_look_in_every_episode():
    env = make_env(
        EnvConfig(task="TabletopPush", image_size=48, variation=Variation.ALL, look_seed=7, cameras=["front"])
    )
    own = make_env(EnvConfig(task="TabletopPush", image_size=48, variation=Variation.ALL, cameras=["front"]))

    def looks(env, seed):
        env.reset(seed, False)
        model = env._model
        return [model.tex_data.tobytes(), model.light_dir.tobytes(), model.cam_pos.tobytes(), model.geom_rgba.tobytes()]

    assert looks(env, 1) == looks(env, 2) == looks(own, 7)
    assert looks(env, 1) != looks(own, 1)
    for seed in (1, 2):
        env.reset(seed, False), own.reset(seed, False)
        assert np.array_equal(env.privileged()["cube_pos"], own.privileged()["cube_pos"])
    env.close()
    own.close()


def test_another_thread_is_told_that_it_cannot_render():
    env = make_env(EnvConfig(task="TabletopReach", image_size=32, cameras=["front"]))
    env.reset(0)
    with ThreadPoolExecutor(1) as other, pytest.raises(UserError, match="the thread that renders first"):
        other.submit(env.reset, 0).result()
    assert env.reset(0).images["front"].any()
    env.close()
