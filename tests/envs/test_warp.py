"""Tabletop tasks in MuJoCo Warp, on the CPU at a small size; with a CUDA device also at a large one."""

import numpy as np
import pytest

from envs.config import Engine, EnvConfig, RenderQuality, Variation
from envs.experts.disturbance import Disturbance
from envs.pool.worker_pool import make_pool
from envs.recording.collect import CollectConfig, collect
from envs.recording.episodes import record_expert_episode
from envs.registry import make_env
from envs.spec import make_env_spec
from envs.warp.episodes import warp_episodes
from envs.warp.pool import WarpPool
from envs.warp.worlds import load_warp
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.jobs.executor import Executor
from pixio_robot.errors import UserError
from pixio_robot.types import EnvPool

# Warp compiles its kernels when they are first used on a machine.
pytestmark = pytest.mark.slow
WORLDS = 6


def config(task="TabletopPick", **settings):
    return EnvConfig(**{"task": task, "engine": Engine.WARP, "image_size": 48} | settings)


def on_cpu(config):
    return EnvConfig(task=config.task, image_size=config.image_size, variation=config.variation, cameras=config.cameras)


@pytest.fixture(scope="module", autouse=True)
def _on_the_cpu():
    """Where a GPU adds contact forces in no fixed order, nothing is the same bit for bit."""
    warp, _ = load_warp()
    with warp.ScopedDevice("cpu"):
        yield


@pytest.fixture(scope="module")
def pool():
    with WarpPool(config(), WORLDS) as made:
        assert isinstance(made, EnvPool)
        yield made


def actions(seed, steps):
    """Down to the table, about, closing and opening."""
    rng = np.random.default_rng(seed)
    return np.clip(rng.normal(0, 0.5, (steps, 4)) - (0, 0, 0.5, 0), -1, 1)


def test_physics_are_mujocos_for_the_same_actions(pool):
    env = make_env(on_cpu(pool.config))
    played = np.stack([actions(slot, 40) for slot in range(WORLDS)], axis=1)
    frames, _ = pool.reset({slot: 50 + slot for slot in range(WORLDS)}, {})
    shown = [[frames[slot].state for slot in range(WORLDS)]]
    for step in played:
        results, lost = pool.step(dict(enumerate(step)), dict.fromkeys(range(WORLDS), False))
        assert not lost
        shown.append([results[slot].frame.state for slot in range(WORLDS)])
    apart = []
    for slot in range(WORLDS):
        states = [env.reset(50 + slot, False).state]
        states += [env.step(action, False).frame.state for action in played[:, slot]]
        apart.append(np.abs(np.stack(states) - np.stack(shown)[:, slot]).max(1))
    env.close()
    # Single precision against double: nothing, until a finger lands on the cube's edge and slips to another side.
    assert max(one[:10].max() for one in apart) < 1e-5
    assert sum(one.max() < 1e-5 for one in apart) >= WORLDS - 1
    assert max(one[-1] for one in apart) < 0.005


def test_states_with_objects_are_mujocos():
    settings = {"task": "TabletopPush", "cameras": [], "object_state": True}
    env = make_env(EnvConfig(**settings))
    with WarpPool(config(**settings), 2) as pool:
        frames, _ = pool.reset({0: 8, 1: 9}, {})
        results, _ = pool.step(dict.fromkeys((0, 1), np.zeros(4)), {})
        for slot in (0, 1):
            np.testing.assert_allclose(frames[slot].state, env.reset(8 + slot).state, atol=1e-5)
            np.testing.assert_allclose(results[slot].frame.state, env.step(np.zeros(4)).frame.state, atol=1e-5)
    env.close()


def test_pictures_show_what_opengl_shows_in_other_colours(pool):
    env = make_env(on_cpu(pool.config))
    frames, _ = pool.reset({slot: 70 + slot for slot in range(WORLDS)}, {})
    for slot in range(WORLDS):
        drawn = env.reset(70 + slot)
        for camera in pool.spec.cameras:
            ours, theirs = (frame.images[camera].astype(int) for frame in (frames[slot], drawn))
            assert ours.shape == theirs.shape
            assert frames[slot].images[camera].dtype == np.uint8
            # The cube is on the same pixels, though its shaded sides are darker here than there.
            red = [(im[..., 0] > 90) & (im[..., 0] > 2 * im[..., 1]) for im in (ours, theirs)]
            assert (red[0] & red[1]).sum() >= 0.95 * min(red[0].sum(), red[1].sum())
            assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.9
    env.close()


def play(pool, seeds, steps=8):
    """Everything the episodes of those seeds show in these slots."""
    frames, _ = pool.reset(seeds, {})
    found = {
        slot: [frame.state.tobytes(), *(frame.images[c].tobytes() for c in pool.spec.cameras)]
        for slot, frame in frames.items()
    }
    for step in range(steps):
        results, _ = pool.step({slot: actions(seed, steps)[step] for slot, seed in seeds.items()}, {})
        for slot, result in results.items():
            found[slot] += [
                result.frame.state.tobytes(),
                *(result.frame.images[c].tobytes() for c in pool.spec.cameras),
            ]
    return {seeds[slot]: shown for slot, shown in found.items()}


def test_an_episode_depends_on_its_seed_alone(pool):
    first = play(pool, {0: 11, 1: 12, 5: 13})
    second = play(pool, {0: 12, 2: 14, 3: 13, 4: 11})
    assert all(first[seed] == second[seed] for seed in first)


def test_a_world_without_an_action_stays_as_it_is(pool):
    pool.reset({0: 1, 1: 2}, {})
    pool.step({0: np.ones(4), 1: np.ones(4)}, {})
    before = {name: value.copy() for name, value in pool.slot(1).privileged().items()}
    for _ in range(3):
        pool.step({0: -np.ones(4)}, {})
    assert all(np.array_equal(value, before[name]) for name, value in pool.slot(1).privileged().items())
    alone = play_on(pool, 1)
    pool.reset({0: 1, 1: 2}, {})
    pool.step({0: np.ones(4), 1: np.ones(4)}, {})
    assert np.array_equal(play_on(pool, 1), alone)


def play_on(pool, slot):
    return np.stack([pool.step({slot: action}, {slot: False})[0][slot].frame.state for action in actions(3, 5)])


def test_bad_actions_slots_and_finished_episodes_are_refused(pool):
    pool.reset({0: 0}, {})
    with pytest.raises(ValueError, match=r"\(4,\)"):
        pool.step({0: np.zeros(3)}, {})
    with pytest.raises(ValueError, match="finite"):
        pool.step({0: np.full(4, np.nan)}, {})
    with pytest.raises(ValueError, match="Slot 99 does not exist"):
        pool.step({99: np.zeros(4)}, {})
    while not pool.step({0: np.zeros(4)}, {0: False})[0][0].done:
        pass
    with pytest.raises(ValueError, match="reset"):
        pool.step({0: np.zeros(4)}, {})


@pytest.mark.parametrize("task", ["TabletopReach", "TabletopPush", "TabletopPick"])
def test_experts_solve_their_tasks_in_it(task):
    seeds = range(300, 300 + 2 * WORLDS)
    settings = config(task, cameras=[])
    episodes = dict(warp_episodes(settings, Disturbance(noise=0.1), seeds, WORLDS))
    assert list(episodes) == list(seeds)
    assert all(episode.success for episode in episodes.values())
    env = make_env(on_cpu(settings))
    lengths = [len(record_expert_episode(env, seed, Disturbance(noise=0.1))) for seed in seeds]
    env.close()
    assert np.isclose(np.mean([len(episode) for episode in episodes.values()]), np.mean(lengths), rtol=0.15)


def test_cameras_move_as_they_do_in_mujoco():
    settings = config("TabletopReach", variation=Variation.CAMERA, cameras=["front"], render_quality=RenderQuality.FULL)
    env = make_env(on_cpu(settings))
    with WarpPool(settings, 2) as pool:
        frames, _ = pool.reset({0: 5, 1: 6}, {})
        for slot in (0, 1):
            drawn = env.reset(5 + slot).images["front"].astype(int)
            green = [
                (im[..., 1] > 70) & (im[..., 1] > 2 * im[..., 0])
                for im in (frames[slot].images["front"].astype(int), drawn)
            ]
            places = [np.argwhere(mask).mean(0) for mask in green]
            assert np.abs(places[0] - places[1]).max() < 1.5
    env.close()


def test_collected_demonstrations_say_what_drew_them(tmp_path):
    settings = config(image_size=32)
    report = collect(settings, CollectConfig(out=str(tmp_path / "demos"), episodes=3, worlds=2, mistakes=0.02))
    store = DemoStore.open(report.out)
    assert len(store) == 3
    assert all(store.successes)
    assert store.spec.simulator == "mujoco_warp"
    assert store.spec.differences(make_env_spec(on_cpu(settings))) == [
        "render_quality: 'ray traced, fast' against 'fast'"
    ]
    again = collect(settings, CollectConfig(out=str(tmp_path / "again"), episodes=3, worlds=3, mistakes=0.02))
    other_store = DemoStore.open(again.out)
    for number in range(3):
        one, other = store.episode(number), other_store.episode(number)
        assert np.array_equal(one.actions, other.actions)
        assert np.array_equal(one.images["hand"], other.images["hand"])


def test_what_it_cannot_do_is_refused(monkeypatch):
    for wrong, says in (
        ({"task": "Lift"}, "tabletop"),
        ({"variation": Variation.TEXTURES}, "not textures"),
    ):
        with pytest.raises(UserError, match=says):
            config(**wrong)
    with pytest.raises(UserError, match="only supported by evaluate and collect"):
        make_env(config())
    with pytest.raises(UserError, match="executor=ray"):
        make_pool(config(), 1, 2, 60.0, executor=Executor.RAY)
    monkeypatch.setitem(__import__("sys").modules, "warp", None)
    with pytest.raises(UserError, match=r"pixio-robot\[warp\]"):
        load_warp()


@pytest.mark.gpu
@pytest.mark.timeout(900)  # with the compiling of all kernels
@pytest.mark.parametrize("task", ["TabletopReach", "TabletopPush", "TabletopPick"])
def test_thousands_of_worlds_on_a_gpu(task):
    worlds = 2048
    settings = config(task, image_size=64)
    env = make_env(on_cpu(settings))
    with WarpPool(settings, worlds, "cuda:0") as pool:
        assert pool.worlds.device.is_cuda
        frames, _ = pool.reset({slot: slot for slot in range(worlds)}, {})
        played = np.stack([actions(slot, 5) for slot in range(worlds)], axis=1)
        for step in played:
            results, _ = pool.step(dict(enumerate(step)), {})
        for slot in range(0, worlds, 400):
            drawn = env.reset(slot)
            assert np.corrcoef(frames[slot].images["front"].ravel(), drawn.images["front"].ravel())[0, 1] > 0.9
            for action in played[:, slot]:
                expected = env.step(action, False)
            assert np.abs(results[slot].frame.state - expected.frame.state).max() < 1e-3
    env.close()
    episodes = dict(warp_episodes(config(task, cameras=[]), Disturbance(noise=0.1), range(worlds), worlds))
    assert sum(episode.success for episode in episodes.values()) > 0.95 * worlds
