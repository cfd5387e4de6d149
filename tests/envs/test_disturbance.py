import numpy as np
import pytest

from envs.config import EnvConfig
from envs.experts.disturbance import Disturbance, Disturber
from envs.recording.episodes import ExpertEpisodeRecorder, record_expert_episode
from envs.registry import make_env
from pixio_robot.data.demos.overridden_steps import OVERRIDDEN_STEPS
from pixio_robot.errors import UserError

ACTION = np.array((0.5, -0.5, 0.0, 1.0), np.float32)


def executed(disturbance, seed, steps=400):
    disturb = Disturber(disturbance, seed)
    return np.stack([disturb(ACTION) for _ in range(steps)])


def test_none_is_none_and_a_seed_repeats_itself():
    assert (executed(Disturbance(), 0) == ACTION).all()
    both = Disturbance(noise=0.1, mistakes=0.02)
    assert np.array_equal(executed(both, 3), executed(both, 3))
    assert not np.array_equal(executed(both, 3), executed(both, 4))


def test_noise_is_as_large_as_asked_and_spares_the_gripper():
    actions = executed(Disturbance(noise=0.1), 0)
    assert np.allclose((actions - ACTION)[:, :3].std(0), 0.1, atol=0.02)
    assert (actions[:, 3] == 1).all()
    assert np.abs(executed(Disturbance(noise=1.0), 0)).max() == 1, "no action is out of range"


def test_mistakes_last_some_steps_and_half_of_them_let_go():
    actions = executed(Disturbance(mistakes=0.02), 1, 20_000)
    wrong = (actions[:, :3] != ACTION[:3]).any(1)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], wrong, [0]])))
    lengths = edges[1::2] - edges[::2]
    assert lengths.min() >= 4
    assert 250 < len(lengths) < 420
    assert 0.4 < (actions[wrong, 3] == -1).mean() < 0.6
    # What goes wrong beside a mistake is what goes wrong without mistakes.
    noisy, plain = (executed(Disturbance(noise=0.1, mistakes=m), 1) for m in (0.02, 0.0))
    assert np.array_equal(noisy[~wrong[:400]], plain[~wrong[:400]])


def test_mistakes_do_not_depend_on_the_noise():
    disturb = Disturber(Disturbance(noise=0.1, mistakes=0.1), 3)
    assert disturb.rng.random() != disturb._mistakes.random()


def test_an_episode_tells_its_mistakes():
    env = make_env(EnvConfig(task="TabletopPick", cameras=[]))
    disturbance = Disturbance(mistakes=0.1)
    recorder = ExpertEpisodeRecorder(env, 0, env.reset(0), disturbance)
    replaced, done = [], False
    while not done:
        action = recorder.act()
        replaced.append(not np.array_equal(action, recorder._actions[-1]))
        result = env.step(action)
        recorder.add(result)
        done = result.done
    assert recorder.episode().info[OVERRIDDEN_STEPS] == np.flatnonzero(replaced).tolist() != []
    env.close()


def test_the_expert_comes_back_from_mistakes():
    env = make_env(EnvConfig(task="TabletopPick", cameras=[]))
    clean = [record_expert_episode(env, seed) for seed in range(30)]
    shaken = [record_expert_episode(env, seed, Disturbance(mistakes=0.04)) for seed in range(30)]
    assert sum(episode.success for episode in shaken) >= 29
    assert sum(map(len, shaken)) > 1.2 * sum(map(len, clean))
    assert dict(shaken[0].info)["mistakes"] == 0.04
    assert OVERRIDDEN_STEPS not in clean[0].info
    env.close()


def test_wrong_numbers_are_named():
    with pytest.raises(UserError, match=r"mistakes=1\.5 must be from 0 to 1"):
        Disturbance(mistakes=1.5)
