"""A policy takes over from the expert in some stretches of its episodes."""

import itertools

import numpy as np
import pytest

from envs.config import EnvConfig
from envs.experts.disturbance import Disturbance
from envs.recording import collect as collecting
from envs.recording.collect import CollectConfig, collect
from envs.recording.episodes import record_expert_episode
from envs.recording.takeovers import Takeovers
from envs.registry import make_env
from pixio_robot.data.demos.overridden_steps import OVERRIDDEN_STEPS
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.errors import UserError

pytestmark = pytest.mark.sim

BLIND = EnvConfig(task="TabletopPick", cameras=[], horizon=400)


class Wanderer:
    """Moves the hand along a direction drawn from the episode's seed, and remembers the frames that it was shown."""

    def reset(self, slot, seed):
        self.direction = np.random.default_rng(seed).uniform(-1, 1, 4)
        self.seen = []

    def needs_images(self, slot):
        return False

    def act(self, frames):
        self.seen.append(frames[0].state)
        return {0: self.direction}


def wandering(probability, fingerprint="wanderer"):
    return Takeovers(Wanderer, fingerprint, probability)


@pytest.fixture(scope="module")
def env():
    env = make_env(BLIND)
    yield env
    env.close()


def played_actions(env, seed, disturbance, takeovers):
    """The recorded episode, and the actions that were executed in it."""
    executed, step = [], env.step
    env.step = lambda action: (executed.append(action), step(action))[1]
    try:
        episode = record_expert_episode(env, seed, disturbance, takeovers)
    finally:
        del env.step
    return episode, np.stack(executed)


def test_the_policy_acts_in_stretches_beside_which_the_expert_is_recorded(env):
    lengths, directions = [], []
    for seed in range(20):
        episode, executed = played_actions(env, seed, Disturbance(), wandering(0.05))
        overridden = (executed != episode.actions).any(1)
        assert episode.info[OVERRIDDEN_STEPS] == np.flatnonzero(overridden).tolist()
        assert (episode.info["takeovers"], episode.info["fingerprint"]) == (0.05, "wanderer")
        edges = np.flatnonzero(np.diff(np.concatenate([[0], overridden, [0]])))
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            directions.append(executed[start])
            if end < len(episode):  # otherwise the end of the episode cut it short
                lengths.append(end - start)
    assert len(lengths) > 12
    assert min(lengths) >= 10
    assert len(np.unique(directions, axis=0)) == len(directions), "each has noise of its own"


def test_the_policy_sees_the_frame_in_which_it_acts(env):
    actor = Wanderer()
    episode = record_expert_episode(env, 0, takeovers=Takeovers(lambda: actor, "", 1.0))
    np.testing.assert_array_equal(actor.seen, episode.state[-len(actor.seen) :])


def test_a_seed_repeats_its_episode(env):
    both = [record_expert_episode(env, 3, Disturbance(noise=0.1), wandering(0.03)) for _ in range(2)]
    np.testing.assert_array_equal(both[0].state, both[1].state)
    np.testing.assert_array_equal(both[0].actions, both[1].actions)


def test_up_to_the_first_takeover_nothing_changes(env):
    plain = record_expert_episode(env, 5, Disturbance(noise=0.1, mistakes=0.01))
    shared = record_expert_episode(env, 5, Disturbance(noise=0.1, mistakes=0.01), wandering(0.1))
    first = shared.info[OVERRIDDEN_STEPS][0]
    assert first > 0
    np.testing.assert_array_equal(plain.state[: first + 1], shared.state[: first + 1])


@pytest.fixture
def in_this_process(env, monkeypatch):
    """Other processes cannot import the wanderer."""

    def episodes(env_config, settings, takeovers, first):
        for seed in itertools.count(first):
            yield seed, record_expert_episode(env, seed, settings.disturbance, takeovers)

    monkeypatch.setattr(collecting, "_episodes", episodes)


def test_a_store_holds_the_takeovers_of_one_policy(in_this_process, tmp_path):
    settings = CollectConfig(out=str(tmp_path / "demos"), episodes=2, workers=1)
    collect(BLIND, settings, wandering(0.02))
    store = DemoStore.open(tmp_path / "demos")
    assert all(store.successes)
    assert store.spec.source.startswith("scripted expert, noise 0.1, takeovers 0.02 of policy wanderer")
    for other, message in (
        (wandering(0.05), "takeovers=0.02, not 0.05"),
        (wandering(0.02, "another"), "policy='wanderer', not 'another'"),
        (None, "policy='wanderer', not None"),
    ):
        with pytest.raises(UserError, match=message):
            collect(BLIND, settings, other)


def test_where_the_expert_never_recovers_the_error_says_what_to_lower(in_this_process, tmp_path):
    settings = CollectConfig(out=str(tmp_path / "demos"), max_failures=2)
    with pytest.raises(UserError, match=r"Lower noise \(0\.1\), takeovers \(1\.0\) or"):
        collect(BLIND, settings, wandering(1.0))
