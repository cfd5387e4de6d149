import dataclasses

import numpy as np
import pytest

from pixio_robot.errors import UserError
from pixio_robot.evaluation.baselines import RandomActor
from pixio_robot.evaluation.config import EvaluateConfig, check_disjoint
from pixio_robot.evaluation.rollout import run_episodes
from pixio_robot.evaluation.video_recorder import VideoRecorder
from pixio_robot.types import Actor, EnvPool

SEEDS = list(range(500, 523))


def test_the_stand_ins_are_what_the_protocols_ask(line_pool, seeking_actor):
    assert isinstance(line_pool(1), EnvPool)
    assert isinstance(seeking_actor(), Actor)
    assert isinstance(RandomActor(1), Actor)


@pytest.mark.parametrize(
    "make", [lambda seeking: seeking(), lambda seeking: seeking(3), lambda seeking: RandomActor(1)]
)
def test_results_come_in_seed_order_and_do_not_depend_on_the_packing(line_pool, seeking_actor, make):
    expected = run_episodes(line_pool(1), make(seeking_actor), SEEDS)
    assert [result.seed for result in expected] == SEEDS
    assert sum(result.success for result in expected) > 0
    assert len({result.steps for result in expected}) > 1
    for slots in (2, 7, 23, 40):
        assert run_episodes(line_pool(slots), make(seeking_actor), SEEDS) == expected


def test_slots_are_refilled_in_order_and_idle_at_the_end(line_pool, seeking_actor):
    pool = line_pool(4)
    run_episodes(pool, seeking_actor(), SEEDS)
    assert [seed for _, seed in pool.played] == SEEDS


def test_no_seeds_is_no_work(line_pool, seeking_actor):
    assert run_episodes(line_pool(3), seeking_actor(), []) == []


def test_a_lost_episode_is_played_again_with_the_same_outcome(line_pool, seeking_actor):
    expected = run_episodes(line_pool(4), seeking_actor(3), SEEDS)
    pool = line_pool(4, lose={(503, 0): 2, (503, 1): 1, (510, 1): 1, (522, 3): 1})
    found = run_episodes(pool, seeking_actor(3), SEEDS)
    assert {result.seed: result.restarts for result in found if result.restarts} == {503: 3, 510: 1, 522: 1}
    assert [dataclasses.replace(result, restarts=0) for result in found] == expected


def test_the_highest_reward_may_be_below_zero_and_the_return_is_their_sum(line_pool, seeking_actor):
    rewards: dict[int, list[float]] = {}

    class Noted(line_pool):
        def step(self, actions, render):
            results, lost = super().step(actions, render)
            for slot, result in results.items():
                rewards.setdefault(self.worlds[slot]["seed"], []).append(result.reward)
            return results, lost

    for result in run_episodes(Noted(4), seeking_actor(), SEEDS):
        assert result.highest_reward == max(rewards[result.seed]) < 0
        assert result.episode_return == pytest.approx(sum(rewards[result.seed]))


def test_a_success_that_is_undone_is_none(line_pool, seeking_actor):
    """The last step decides, of a task that goes on."""

    class Away(seeking_actor):
        def act(self, frames):
            late = {slot: np.ones(1, np.float32) for slot in frames if self.steps[slot] >= 14}
            return super().act(frames) | late

    results = run_episodes(line_pool(4, goes_on=True), Away(), SEEDS)
    undone = [result for result in results if result.first_success is not None and not result.success]
    assert len(undone) > len(results) / 2
    assert all(result.first_success < 15 and result.steps == 20 for result in undone)


def test_all_slots_lost_at_once(line_pool, seeking_actor):
    pool = line_pool(4, lose={(seed, 1): 1 for seed in SEEDS[:4]})
    found = run_episodes(pool, seeking_actor(), SEEDS)
    assert sum(result.restarts for result in found) == 4


@pytest.mark.parametrize("step", [0, 2])
def test_too_many_restarts_names_the_seed(line_pool, seeking_actor, step):
    pool = line_pool(4, lose={(507, step): 3})
    with pytest.raises(UserError, match=r"worker of the episode with seed 507 died 3 times"):
        run_episodes(pool, seeking_actor(), SEEDS, max_restarts=2)


def test_rendering_only_where_the_actor_looks(line_pool, seeking_actor):
    blind, looking = line_pool(4), line_pool(4)
    run_episodes(blind, seeking_actor(), SEEDS)
    actor = seeking_actor(5)
    results = run_episodes(looking, actor, SEEDS)
    assert blind.rendered == 0
    # Each look is one rendered frame; frames rendered for a look that the end of the episode forestalled come on top.
    assert actor.images_seen <= looking.rendered <= actor.images_seen + len(results)
    assert looking.rendered < 0.5 * sum(result.steps for result in results)


@pytest.mark.parametrize("look_every", [None, 4])
def test_filming_changes_nothing(line_pool, seeking_actor, tmp_path, look_every):
    expected = run_episodes(line_pool(4), seeking_actor(look_every), SEEDS)
    pool = line_pool(4)
    recorder = VideoRecorder(tmp_path / "videos", pool.spec, videos=2, camera="front")
    found = run_episodes(pool, seeking_actor(look_every), SEEDS, watchers=[recorder])
    assert any(result.video for result in found)
    assert [dataclasses.replace(result, video=None) for result in found] == expected


def test_on_episode_sees_every_episode_once_as_it_ends(line_pool, seeking_actor):
    seen = []
    results = run_episodes(line_pool(5), seeking_actor(), SEEDS, on_episode=seen.append)
    assert sorted(seen, key=lambda result: result.seed) == results


def test_duplicated_and_shared_seeds_are_refused(line_pool, seeking_actor):
    with pytest.raises(UserError, match=r"more than once: \[7\]"):
        run_episodes(line_pool(2), seeking_actor(), [7, 8, 7])
    check_disjoint(range(100), range(100, 200))
    with pytest.raises(UserError, match=r"2 evaluation seeds .*\(98, 99\)"):
        check_disjoint(range(100), range(98, 120))


def test_seeds_are_whole_numbers_in_any_container(line_pool, seeking_actor):
    expected = run_episodes(line_pool(2), seeking_actor(), [3, 4])
    for seeds in (iter([3, 4]), (seed for seed in (3, 4)), np.array([3, 4]), range(3, 5)):
        assert run_episodes(line_pool(2), seeking_actor(), seeds) == expected
    for wrong in (2.0, "3", np.float32(2), None):
        with pytest.raises(TypeError):
            run_episodes(line_pool(2), seeking_actor(), [0, wrong])


@pytest.mark.parametrize(("value", "message"), [(np.full(1, np.nan), "non-finite"), (np.zeros(2), r"shape \(2,\)")])
def test_bad_actions_name_the_seed_and_step(line_pool, seeking_actor, value, message):
    class Broken(seeking_actor):
        def act(self, frames):
            return super().act(frames) | {slot: value for slot in frames if self.steps[slot] == 2}

    with pytest.raises(UserError, match=message + ".* at step 1 of the episode with seed 500"):
        run_episodes(line_pool(2), Broken(), SEEDS)


@pytest.mark.parametrize("reward", [np.nan, -np.inf])
def test_a_reward_that_is_no_number_names_the_seed_and_step(line_pool, seeking_actor, reward):
    class Broken(line_pool):
        def step(self, actions, render):
            results, lost = super().step(actions, render)
            for slot, result in results.items():
                if self.worlds[slot]["seed"] == 501 and self.worlds[slot]["step"] == 2:
                    result.reward = reward
            return results, lost

    with pytest.raises(UserError, match=r"reward is .* at step 2 of the episode with seed 501"):
        run_episodes(Broken(2), seeking_actor(), SEEDS)


def test_config_refuses_nonsense():
    assert EvaluateConfig(episodes=3).seed_list() == [100_000, 100_001, 100_002]
    assert EvaluateConfig(seeds=[5, 3]).seed_list() == [5, 3]
    with pytest.raises(UserError, match=r"more than once: \[4\]"):
        EvaluateConfig(seeds=[4, 3, 4])
    with pytest.raises(UserError, match=r"^seeds\[0\]=-1 must be at least 0"):
        EvaluateConfig(seeds=[-1])
    for key in ("episodes", "num_slots", "step_timeout_s"):
        with pytest.raises(UserError, match=key):
            EvaluateConfig(**{key: 0})
    for key in ("first_seed", "workers", "videos", "max_restarts"):
        with pytest.raises(UserError, match=key):
            EvaluateConfig(**{key: -1})


def test_random_actions_are_bounded_and_belong_to_the_seed():
    first, second = RandomActor(3, -0.5, 2.0), RandomActor(3, -0.5, 2.0)
    first.reset(0, 11)
    second.reset(0, 99)
    second.reset(5, 11)
    for _ in range(50):
        ours, theirs = first.act({0: None}), second.act({0: None, 5: None})
        np.testing.assert_array_equal(ours[0], theirs[5])
        assert ours[0].dtype == np.float32
        assert (ours[0] >= -0.5).all()
        assert (ours[0] <= 2.0).all()
    with pytest.raises(UserError):
        RandomActor(0)
    with pytest.raises(UserError, match="without bounds, only policies can be evaluated"):
        RandomActor(2, np.array([-1, -np.inf]), np.array([1, np.inf]))
