import random
import subprocess
import sys

import numpy as np
import pytest

from envs.config import Controller, EnvConfig, RenderQuality
from envs.registry import make_env
from envs.spec import max_episode_steps
from envs.tasks import TASKS
from pixio_robot.errors import UserError

pytestmark = pytest.mark.sim


def play(env, seed, steps=12, render=True):
    """Everything the episode of that seed shows under that seed's random actions."""
    rng = np.random.default_rng(seed)
    frames = [env.reset(seed, render)]
    for _ in range(steps):
        action = np.clip(rng.normal(0, 0.6, 7) - (0, 0, 0.3, 0, 0, 0, 0), -1, 1)
        frames.append(env.step(action, render).frame)
    return frames


def same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.state, other.state)
        assert one.images.keys() == other.images.keys()
        assert all(np.array_equal(one.images[name], other.images[name]) for name in one.images)


@pytest.mark.parametrize("name", ["lift", "cluttered"])
def test_an_episode_depends_on_its_seed_alone(request, name):
    env = request.getfixturevalue(name)
    before = play(env, 7)
    play(env, 8)
    play(env, 9, render=False)
    same(before, play(env, 7))
    assert not np.array_equal(before[0].images["front"], play(env, 8)[0].images["front"])


def test_a_fresh_environment_repeats_it(cluttered):
    fresh = make_env(cluttered.config)
    try:
        play(fresh, 3, steps=3)
        same(play(fresh, 5, steps=30), play(cluttered, 5, steps=30))
    finally:
        fresh.close()


def test_rendering_changes_nothing_but_the_images(lift):
    seen, unseen = play(lift, 4), play(lift, 4, render=False)
    assert all(np.array_equal(one.state, other.state) for one, other in zip(seen, unseen, strict=True))
    assert all(frame.images == {} for frame in unseen)


def test_the_users_random_state_is_left_alone(lift):
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    expected = random.random(), np.random.rand()  # noqa: NPY002
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    lift.reset(0, False)
    assert (random.random(), np.random.rand()) == expected  # noqa: NPY002


def test_frames_have_the_promised_shapes(lift):
    frame = lift.reset(0)
    assert frame.state.shape == (lift.spec.state_dim,)
    assert frame.state.dtype == np.float32
    for name, camera in lift.spec.cameras.items():
        assert frame.images[name].shape == (camera.height, camera.width, 3)
        assert frame.images[name].dtype == np.uint8
        assert frame.images[name].std() > 10
    rotation = frame.state[3:9].reshape(2, 3)
    assert np.allclose(rotation @ rotation.T, np.eye(2), atol=1e-5)
    assert np.array_equal(lift.render("hand"), frame.images["hand"])


def test_cubes_start_everywhere_in_the_square(lift):
    spread = lift.config.start_spread
    starts = []
    for seed in range(60):
        lift.reset(seed, False)
        starts.append(lift.privileged()["cube_pos"][:2])
    starts = np.array(starts)
    assert np.abs(starts).max() <= spread
    assert (starts.max(0) - starts.min(0) > 1.7 * spread).all()


@pytest.mark.parametrize(("task", "spread"), [("PickPlaceCan", 0.0), ("PickPlaceCan", 0.06), ("PickPlaceSingle", 0.0)])
def test_a_single_grocery_starts_within_the_spread(task, spread):
    """robosuite's sampler also places the groceries that the task removes, which a small range has no room for."""
    env = make_env(EnvConfig(task=task, cameras=[], start_spread=spread))
    try:
        starts = []
        for seed in range(12):
            env.reset(seed, False)
            places = np.array(
                [
                    place
                    for name, place in env.privileged().items()
                    if name in ("milk_pos", "bread_pos", "cereal_pos", "can_pos")
                ]
            )
            starts += list(places[np.abs(places[:, 0]) < 1, :2])  # the others are out of the scene
        assert len(starts) == 12
        assert (np.abs(np.array(starts) - (0.1, -0.25)) <= np.array([0.145, 0.195]) * spread / 0.15 + 0.001).all()
    finally:
        env.close()


def test_no_place_for_all_objects_is_a_mistake_of_the_spread():
    env = make_env(EnvConfig(task="PickPlace", cameras=[]))
    try:
        groceries = env._env.placement_initializer.samplers["CollisionObjectSampler"]
        groceries.x_range, groceries.y_range = [-0.05, 0.05], [-0.05, 0.05]
        with pytest.raises(UserError, match="start_spread"):
            env.reset(0, False)
    finally:
        env.close()


def test_the_cube_is_large_in_the_front_camera_at_96_pixels():
    env = make_env(EnvConfig(cameras=["front"]))
    try:
        for seed in range(8):
            image = env.reset(seed).images["front"].astype(int)
            red = (image[..., 0] > 70) & (image[..., 0] > 2 * image[..., 1]) & (image[..., 0] > 2 * image[..., 2])
            rows, columns = np.nonzero(red)
            assert min(np.ptp(rows), np.ptp(columns)) + 1 >= 12
    finally:
        env.close()


def test_bad_actions_and_finished_episodes_are_refused(lift):
    lift.reset(0, False)
    with pytest.raises(ValueError, match=r"\(7,\)"):
        lift.step(np.zeros(6), False)
    with pytest.raises(ValueError, match="finite"):
        lift.step(np.full(7, np.nan), False)
    for _ in range(max_episode_steps(lift.config)):
        result = lift.step(np.zeros(7), False)
    assert result.done
    assert not result.success
    with pytest.raises(ValueError, match="reset"):
        lift.step(np.zeros(7), False)


@pytest.mark.parametrize("task", ["Lift", "Stack"])
def test_steps_are_robosuites_own_bit_for_bit(task):
    """Our control loop and thinned meshes against `robosuite.Env.step` on an undressed path through physics."""
    from envs.robosuite.controller import FastOscController
    from envs.robosuite.env import _make_robosuite_env, global_seed

    config = EnvConfig(task=task)
    ours, theirs = make_env(config), _make_robosuite_env(config)
    rng = np.random.default_rng(0)
    for seed in range(2):
        ours.reset(seed, False)
        with global_seed(seed):
            theirs.reset()
        theirs.sim.data._data.qpos[:] = ours._env.sim.data._data.qpos
        theirs.sim.forward()
        control = FastOscController(ours._env)
        for _ in range(50):
            action = rng.uniform(-1, 1, 7) - (0, 0, 0.4, 0, 0, 0, 0)
            control.step(action)
            theirs.step(action)
            assert np.array_equal(ours._env.sim.data.qpos, theirs.sim.data.qpos)
            assert np.array_equal(ours._env.sim.data.qvel, theirs.sim.data.qvel)
        assert ours._env.reward(action) == theirs.reward(action)
    ours.close()
    theirs.close()


def test_states_of_robosuite_itself_are_gone_on_from(lift):
    """A state is robosuite's flattened one, as robomimic keeps it."""
    from envs.simulator_imports import load_robosuite

    theirs = load_robosuite().make(
        "Lift", robots="Panda", has_renderer=False, has_offscreen_renderer=False, use_camera_obs=False, control_freq=20
    )
    theirs.reset()
    for _ in range(5):
        theirs.step(np.array((0.3, -0.2, -0.4, 0, 0, 0.2, -1)))
    state = theirs.sim.get_state().flatten()
    lift.reset(0, False)
    lift.reset_to(state, False)
    assert np.array_equal(lift.get_state(), state)
    site = theirs.sim.data.site_xpos[theirs.robots[0].eef_site_id["right"]]
    theirs.sim.forward()
    assert np.allclose(lift.privileged()["eef_pos"], site, atol=1e-9)
    assert np.allclose(lift.privileged()["cube_pos"], theirs.sim.data.body_xpos[theirs.cube_body_id], atol=1e-9)
    theirs.close()


def test_an_episode_can_be_played_again_from_its_first_state(lift):
    actions = np.random.default_rng(0).uniform(-0.5, 0.5, (20, 7)).astype(np.float32)

    def played() -> np.ndarray:
        return np.stack([lift.step(action, False).frame.state for action in actions])

    lift.reset(3, False)
    state, first = lift.get_state(), played()
    lift.reset(30, False)
    lift.reset_to(state, False)
    np.testing.assert_allclose(played(), first, atol=1e-6)


@pytest.mark.parametrize("controller", [Controller.OSC_POSE, Controller.JOINT_POSITION])
def test_what_follows_a_restored_state_does_not_depend_on_steps_before(controller):
    env = make_env(EnvConfig(task="Lift", cameras=[], controller=controller))
    still = np.zeros(env.spec.action_dim, np.float32)
    env.reset(2)
    for _ in range(10):
        env.step(still + 0.5)
    state = env.get_state()

    def played() -> np.ndarray:
        env.reset_to(state)
        return np.stack([env.step(still).frame.state for _ in range(5)])

    stepped = played()
    env.reset(2)  # no step in between
    np.testing.assert_array_equal(played(), stepped)
    env.reset(30)  # with another posture of the arm
    np.testing.assert_array_equal(played(), stepped)
    env.close()


def test_wiping_takes_the_dirt_away_and_succeeds():
    env = make_env(EnvConfig(task="Wipe", image_size=64, cameras=["front"]))
    dirty = env.reset(3).images["front"]
    robosuite = env._env
    bodies = [robosuite.sim.model.body_name2id(marker.root_body) for marker in robosuite.model.mujoco_arena.markers]
    dirt = robosuite.sim.data.body_xpos[bodies]
    step = None
    for place in np.concatenate([dirt[::6], dirt[::-6]]) - (0, 0, 0.012):
        for _ in range(8):
            if step is None or not step.done:
                pull = np.clip((place - env.privileged()["eef_pos"]) / 0.05 * 1.6, -1, 1)
                step = env.step(np.concatenate([pull, np.zeros(3)]), False)
    assert step is not None
    assert step.success
    clean = env.render("front")
    assert clean.astype(int).sum() > dirty.astype(int).sum()  # the dirt is dark
    again = env.reset(3).images["front"]
    assert np.array_equal(again, dirty)
    env.close()


@pytest.mark.parametrize(
    ("task", "chosen"),
    [
        ("PickPlaceSingle", ["can", "bread", "milk", "bread", "bread", "cereal", "milk", "cereal"]),
        ("NutAssemblySingle", ["round_nut", "square_nut", "square_nut"]),
    ],
)
def test_the_object_of_an_episode_follows_from_its_seed_in_every_process(task, chosen):
    """robosuite itself draws from a set of names, in the order of the process's hash seed."""
    env = make_env(EnvConfig(task=task, cameras=[]))
    for seed, name in enumerate(chosen):
        env.reset(seed)
        names = [f"{name}_pos" for name in TASKS[task].bodies if "goal" not in name and "peg" not in name]
        poses = env.privileged()
        assert [key for key in names if np.abs(poses[key]).max() < 4] == [f"{name}_pos"]
    env.close()


def test_fast_quality_is_cheaper_and_alike():
    images = {}
    for quality in RenderQuality:
        env = make_env(EnvConfig(cameras=["hand"], image_size=48, render_quality=quality))
        images[quality] = env.reset(2).images["hand"].astype(int)
        env.close()
    assert 0 < np.abs(images[RenderQuality.FULL] - images[RenderQuality.FAST]).mean() < 12


def test_building_is_quiet_and_missing_opengl_says_what_to_install():
    # A Python path without PyOpenGL's EGL platform: what a machine without the library looks like to MuJoCo.
    code = (
        "import sys; sys.modules['OpenGL.EGL'] = None; sys.modules['mujoco.egl'] = None\n"
        "from envs.config import EnvConfig; from envs.registry import make_env\n"
        "from pixio_robot.errors import UserError\n"
        "env = make_env(EnvConfig())\ntry: env.reset(0)\nexcept UserError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "libegl1" in run.stdout
    assert len((run.stdout + run.stderr).splitlines()) == 1
