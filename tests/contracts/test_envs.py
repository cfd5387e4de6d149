"""One suite for every registered environment: a new task is tested by being in `envs.tasks.TASKS`."""

import numpy as np
import pytest

from envs.config import SIMULATOR_CAMERAS, Controller, EnvConfig, Variation
from envs.registry import Environment, make_env
from envs.spec import action_bounds, make_env_spec
from envs.tasks import TASKS, Simulator, get_task
from pixio_robot.errors import UserError

STEPS = 6


def marks(task: str, fast: bool) -> list[pytest.MarkDecorator]:
    """robosuite steps are `sim`; all but our own light tasks and one of robosuite's are `slow`."""
    simulator = get_task(task).simulator
    found = [pytest.mark.sim] if simulator is Simulator.ROBOSUITE else []
    return found if fast else [*found, pytest.mark.slow]


def case(task: str, fast: bool = False, **settings: object):
    cameras = [
        name for name in ("front", "hand") if name in SIMULATOR_CAMERAS.get(get_task(task).simulator, ("front",))
    ]
    name = "-".join([task, *(getattr(value, "value", str(value)) for value in settings.values())])
    config = EnvConfig(**{"task": task, "image_size": 32, "cameras": cameras} | settings)
    return pytest.param(config, id=name, marks=marks(task, fast))


FAST = ("Lift", "TabletopReach", "TabletopPush", "TabletopPick")
CASES = [
    *(case(task, task in FAST) for task in TASKS),
    *(case(f"gymnasium:{task}", True) for task in ("Pusher-v5", "Hopper-v5")),
    *(case(task, variation=level) for task in ("PickPlaceCan", "Door") for level in (Variation.ALL,)),
    *(case("TabletopPush", True, variation=level) for level in Variation if level is not Variation.NONE),
    *(case("Lift", robot=robot, controller=controller) for robot in ("Sawyer", "UR5e") for controller in Controller),
    *(case("Lift", controller=controller) for controller in Controller if controller is not Controller.OSC_POSE),
]


@pytest.fixture(scope="module", params=CASES)
def env(request):
    made = make_env(request.param)
    yield made
    made.close()
    made.close()


def actions(env: Environment, seed: int) -> list[np.ndarray]:
    low, high = action_bounds(env.config)
    rng = np.random.default_rng(seed)
    if env.config.controller is Controller.OSC_POSE_ABSOLUTE:
        # Near where the gripper is: an arm flung across the room is no test.
        here = np.concatenate([env.privileged()["eef_pos"], [np.pi, 0, 0, 0]])
        return [here + rng.normal(0, 0.02, len(here)) for _ in range(STEPS)]
    return [rng.uniform(low, high) * 0.5 for _ in range(STEPS)]


def play(env: Environment, seed: int, render: bool = True, looks: bool = False):
    frames, rewards = [env.reset(seed, render)], []
    for action in actions(env, seed):
        if looks:
            for camera in env.config.cameras:
                env.render(camera)
                env.render_depth(camera)
                env.render_segmentation(camera)
            env.privileged()
        result = env.step(action, render)
        frames.append(result.frame)
        rewards.append(result.reward)
        if result.done:
            break
    return frames, rewards


def assert_same(first, second, images=True):
    assert first[1] == second[1]
    for mine, theirs in zip(first[0], second[0], strict=True):
        assert np.array_equal(mine.state, theirs.state)
        if images:
            assert mine.images.keys() == theirs.images.keys()
            assert all(np.array_equal(mine.images[name], theirs.images[name]) for name in mine.images)


def test_the_spec_says_what_frames_hold(env):
    assert env.spec == make_env_spec(env.config)
    frame = env.reset(1)
    assert frame.state.shape == (env.spec.state_dim,)
    assert frame.state.dtype == np.float32
    assert list(frame.images) == list(env.spec.cameras)
    for name, camera in env.spec.cameras.items():
        assert frame.images[name].shape == (camera.height, camera.width, 3)
        assert frame.images[name].dtype == np.uint8
    low, high = action_bounds(env.config)
    assert low.shape == high.shape == (env.spec.action_dim,)


def test_the_same_seed_is_the_same_episode(env):
    first = play(env, 7)
    play(env, 8, render=False)
    assert_same(first, play(env, 7))


def test_looking_changes_nothing(env):
    assert_same(play(env, 4, render=False), play(env, 4, render=True, looks=True), images=False)


def test_an_episode_goes_on_from_a_state(env):
    env.reset(3)
    for action in actions(env, 3)[:3]:
        env.step(action, render=False)
    state = env.get_state()
    before = env.privileged().get("eef_pos")

    def go_on():
        frames = [env.reset_to(state)]
        return [*frames, *(env.step(action).frame for action in actions(env, 5))]

    first = go_on()
    again = env.reset_to(state)
    assert before is None or np.allclose(again.state[:3], before, atol=0.02)
    second = go_on()
    assert_same((first, []), (second, []))
    with pytest.raises(UserError, match=rf"The state of .* must have shape \({len(state)},\)"):
        env.reset_to(state[:-1])
    with pytest.raises(UserError, match="not finite at index 1 "):
        env.reset_to(np.where(np.arange(len(state)) == 1, np.nan, state))


def test_ground_truth_fits_the_picture(env):
    env.reset(2)
    names = env.segmentation_names()
    assert len(names) == 3 + len(get_task(env.config.task).bodies)
    for camera in env.config.cameras:
        depth, classes = env.render_depth(camera), env.render_segmentation(camera)
        size = env.config.image_size
        assert depth.shape == classes.shape == (size, size)
        assert depth.dtype == np.float32
        assert (depth > 0).all()
        assert set(np.unique(classes)) <= set(range(len(names)))
        _, rotation = env.camera_pose(camera)
        assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)


def test_bad_actions_are_refused(env):
    env.reset(0, False)
    with pytest.raises(ValueError, match="shape"):
        env.step(np.zeros(env.spec.action_dim + 1))
    with pytest.raises(ValueError, match="finite"):
        env.step(np.full(env.spec.action_dim, np.nan))
