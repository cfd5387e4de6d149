"""Environments of others without a MuJoCo model: they show what they show, and are asked for nothing else."""

import contextlib

import gymnasium
import numpy as np
import painted
import pytest

from envs.config import EnvConfig, RenderQuality
from envs.pool.worker_pool import make_pool
from envs.registry import make_env
from envs.spec import make_env_spec, max_episode_steps
from envs.third_party.reproducibility import check_distinct_initial_states, is_reproducible, limitations
from pixio_robot.errors import UserError

DOT, PLAIN, ROBOT = (f"gymnasium:painted:painted/{name}-v0" for name in ("Dot", "Plain", "Robot"))


def actions(seed, steps=6):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, 2)).astype(np.float32)


@pytest.fixture
def made():
    """made(config) -> an environment, which is closed."""
    with contextlib.ExitStack() as stack:
        yield lambda config: stack.enter_context(contextlib.closing(make_env(config)))


def test_pictures_and_numbers_are_those_of_its_observation(made):
    env, theirs = made(EnvConfig(task=DOT)), gymnasium.make("painted/Dot-v0")
    spec = env.spec
    assert {name: (camera.height, camera.width) for name, camera in spec.cameras.items()} == {
        "pixels_top": (24, 32),
        "pixels_wrist": (16, 16),
    }
    assert spec.state_names == ("agent_pos.0 [?]", "agent_pos.1 [?]", "target.0 [?]", "target.1 [?]")
    assert (spec.control_hz, max_episode_steps(env.config), spec.render_quality) == (10.0, 40, "unknown")
    frame, (observation, _) = env.reset(3), theirs.reset(seed=3)
    for action in actions(0):
        assert np.array_equal(frame.images["pixels_top"], observation["pixels"]["top"])
        assert np.array_equal(frame.images["pixels_wrist"], observation["pixels"]["wrist"])
        assert np.array_equal(frame.state, [*observation["agent"]["pos"], *observation["target"]])
        result = env.step(action)
        observation, reward, *_ = theirs.step(action)
        assert result.reward == reward
        assert np.array_equal(env.render("pixels_top"), result.frame.images["pixels_top"])
        frame = result.frame
    assert env.step(actions(1)[0], render=False).frame.images == {}


@pytest.mark.parametrize("horizon", [None, 5])
def test_a_time_limit_of_its_own_is_replaced_by_the_horizon(made, horizon):
    env = made(EnvConfig(task="gymnasium:painted:painted/Limited-v0", cameras=[], horizon=horizon))
    env.reset(0)
    steps = (horizon or 3) - 1
    assert [env.step(np.zeros(2)).done for _ in range(steps)] == [False] * steps
    assert env.step(np.zeros(2)).done


def test_without_pictures_in_it_render_is_the_camera(made):
    env, theirs = made(EnvConfig(task=PLAIN)), gymnasium.make("painted/Plain-v0", render_mode="rgb_array")
    frame, (observation, _) = env.reset(5), theirs.reset(seed=5)
    assert np.array_equal(frame.state, observation)
    assert list(frame.images) == list(env.spec.cameras) == ["front"]
    assert np.array_equal(frame.images["front"], theirs.render())
    assert make_env_spec(EnvConfig(task=PLAIN, cameras=[])).cameras == {}


def test_it_is_solved_by_its_own_word_and_the_horizon_is_ours(made):
    env = made(EnvConfig(task=PLAIN, cameras=[], horizon=60))
    state = env.reset(0, False).state
    steps = 0
    while not (result := env.step(np.sign(state[2:] - state[:2]), False)).done:
        state, steps = result.frame.state, steps + 1
    assert result.success
    assert 0 < steps < 40
    env.reset(0, False)
    away = np.sign(state[:2] - state[2:])
    assert sum(not env.step(away, False).done for _ in range(60)) == 59  # its own limit is 40
    with pytest.raises(ValueError, match="over"):
        env.step(away)


def test_its_settings_are_part_of_what_it_is(made):
    wide, usual = (make_env_spec(EnvConfig(task=DOT, make=make)) for make in ({"width": 48}, {}))
    assert wide.cameras["pixels_top"].width == 48
    assert (wide.source, usual.source) == ('as Gymnasium makes it, make {"width": 48}', "as Gymnasium makes it")
    assert made(EnvConfig(task=DOT, make={"width": 48})).reset(0).images["pixels_top"].shape == (24, 48, 3)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"make": {"widht": 48}}, "with make=.*widht"),
        ({"make": {"max_episode_steps": 9}}, "make must not contain max_episode_steps: .*horizon"),
        ({"task": "Lift", "make": {"width": 48}}, "make applies only to Gymnasium environments"),
        ({"image_size": 64}, "renders 'pixels_top' at 24 x 32 pixels"),
        ({"control_hz": 5}, "specifies a control rate of 10 Hz"),
        ({"render_quality": RenderQuality.FULL}, "renders images itself"),
        ({"start_spread": 0.1}, "places objects itself"),
        ({"cameras": ["pixels_tpo"]}, "Did you mean 'pixels_top'"),
        ({"task": "gymnasium:Pendulum-v1"}, r"cannot be rendered \(pygame.*cameras=\[\]"),
    ],
)
def test_what_it_decides_by_itself_is_not_passed_over(settings, says):
    with pytest.raises(UserError, match=says):
        make_env_spec(EnvConfig(**{"task": DOT} | settings))


def test_what_cannot_be_drawn_plays_without_pictures(made):
    config = EnvConfig(task="gymnasium:Pendulum-v1", cameras=[])  # it draws with pygame, which is not installed
    env = made(config)
    assert env.reset(0).images == {}
    assert env.step(np.zeros(1)).frame.images == {}
    assert is_reproducible(config)


def test_seeds_that_begin_with_the_same_state_are_refused(monkeypatch):
    monkeypatch.setattr(painted.Dot, "metadata", painted.Dot.metadata | {"initial_states": 5})
    few = EnvConfig(task=DOT, make={"width": 28})
    check_distinct_initial_states(few, range(103, 108))
    with pytest.raises(UserError, match=r"has 5 initial states, and the seeds 103 and 108 .* episodes=5"):
        check_distinct_initial_states(few, range(103, 109))
    monkeypatch.undo()
    check_distinct_initial_states(EnvConfig(task=DOT), range(1000))


def test_what_only_a_simulator_knows_is_refused(made):
    env = made(EnvConfig(task=DOT))
    env.reset(0)
    asked = ("render_depth", "render_segmentation", "camera_pose", "privileged", "get_state")
    for ask in (*(getattr(env, name) for name in asked), lambda: env.reset_to(np.zeros(4))):
        with pytest.raises(UserError, match="has no MuJoCo model, so it cannot provide"):
            ask()


def test_what_it_shows_must_be_what_its_space_says(made, monkeypatch):
    plain, seen = made(EnvConfig(task=PLAIN, cameras=[])), made(EnvConfig(task=DOT))
    monkeypatch.setattr(painted.Dot, "_picture", lambda *_: np.zeros((24, 32, 3)))
    with pytest.raises(UserError, match=r"pixels_top of .* is float64 \(24, 32, 3\), but must be uint8"):
        seen.reset(0)
    monkeypatch.setattr(painted.Dot, "render", lambda _: None)
    with pytest.raises(UserError, match=r"cannot be rendered \(render\(\) returns object \(\)"):
        make_env_spec(EnvConfig(task=PLAIN, make={"width": 20}))
    monkeypatch.setattr(painted.Dot, "_observation", lambda _: np.zeros(5))
    with pytest.raises(UserError, match="has 5 numbers, but its space has 4"):
        plain.reset(0)


def test_a_rate_that_it_does_not_tell_is_taken_as_given(monkeypatch):
    monkeypatch.setattr(painted.Dot, "metadata", {"render_modes": []})
    gymnasium.register("painted/Silent-v0", entry_point=painted.Dot)
    try:
        spec = make_env_spec(EnvConfig(task="gymnasium:painted/Silent-v0", control_hz=5))
    finally:
        del gymnasium.registry["painted/Silent-v0"]
    assert spec.control_hz == 5.0


@pytest.mark.parametrize(
    ("task", "wind", "same"),
    [(DOT, "", True), (PLAIN, "global", True), (DOT, "clock", False), (PLAIN, "remembered", False), (ROBOT, "", False)],
)
def test_whether_a_seed_gives_the_same_episode_again_is_found_out(task, wind, same):
    assert is_reproducible(EnvConfig(task=task, make={"wind": wind})) is same


def test_drawing_that_changes_the_episode_is_found_out(monkeypatch):
    drawn = painted.Dot.render

    def render(self):
        self._pos = self._pos + 0.001
        return drawn(self)

    assert is_reproducible(EnvConfig(task=PLAIN))
    monkeypatch.setattr(painted.Dot, "render", render)
    assert not is_reproducible(EnvConfig(task=PLAIN))


def test_what_is_not_promised_is_said():
    said = limitations(EnvConfig(task=DOT, make={"wind": "clock"}), False)
    assert said[0].endswith("depth (float32 (24, 32, 1))")
    assert "the same seed does not give the same episode" in said[1]
    assert limitations(EnvConfig(task=PLAIN), True) == []
    assert (
        make_env_spec(EnvConfig(task=ROBOT)).source == "as Gymnasium makes it, episodes do not follow from their seeds"
    )


def test_a_robot_whose_starts_differ_is_not_moved(monkeypatch):
    monkeypatch.setattr(painted.Dot, "step", lambda *_: pytest.fail("moved"))
    monkeypatch.setattr(painted.Dot, "_observation", lambda self: np.random.default_rng().random(4, np.float32))
    assert not is_reproducible(EnvConfig(task=PLAIN))


def test_episodes_do_not_depend_on_the_number_of_workers():
    """Pictures of several sizes, and wind out of the global generator, go through two processes as through one."""
    config = EnvConfig(task=DOT, make={"wind": "global"})

    def play(workers):
        with make_pool(config, workers, 3) as pool:
            pool.reset({slot: 10 + slot for slot in range(3)}, {})
            for action in actions(2, steps=3):
                results, lost = pool.step(dict.fromkeys(range(3), action / 2), {})
                assert not lost
            return [results[slot].frame for slot in range(3)]

    for one, two in zip(play(1), play(2), strict=True):
        assert np.array_equal(one.state, two.state)
        assert {name: image.tolist() for name, image in one.images.items()} == {
            name: image.tolist() for name, image in two.images.items()
        }
        assert one.images["pixels_top"].std() > 10
