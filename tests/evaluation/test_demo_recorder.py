"""Rollouts kept as demonstrations are the episodes that were played, each once."""

import dataclasses

import numpy as np
import pytest

from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.demos.verify import verify_store
from pixio_robot.errors import UserError
from pixio_robot.evaluation.config import EvaluateConfig
from pixio_robot.evaluation.evaluate import evaluate
from pixio_robot.evaluation.results import EvaluatedPolicy, read_episodes

POLICY = EvaluatedPolicy(name="seeker", label="Seeker", policy="bc", encoder="none", fingerprint="abc")
CONFIG = EvaluateConfig(episodes=12, num_slots=4, videos=0)


class Killed(Exception):
    pass


def test_the_store_holds_what_was_played(line_pool, seeking_actor, tmp_path):
    places = {"directory": tmp_path / "out", "record": tmp_path / "demos"}
    summary = evaluate(line_pool(4), seeking_actor(3, noise=3.0), POLICY, CONFIG, **places)
    unrecorded = evaluate(line_pool(4), seeking_actor(3, noise=3.0), POLICY, CONFIG, tmp_path / "other")
    assert 0 < summary.successes == unrecorded.successes < summary.episodes
    assert read_episodes(tmp_path / "out") == read_episodes(tmp_path / "other")
    store = DemoStore.open(tmp_path / "demos")
    assert verify_store(store) == []
    assert sorted(store.seeds) == summary.seeds
    played = {result.seed: result for result in read_episodes(tmp_path / "out")}
    for number in range(len(store)):
        episode = store.episode(number)
        result = played[episode.seed]
        assert (len(episode), episode.success) == (result.steps, result.success)
        assert episode.rewards.sum() == pytest.approx(result.episode_return, rel=1e-5)
        # The world moves by a fifth of the (clipped) action: each action stands beside what was seen before it.
        moved = 0.2 * np.clip(episode.actions[:-1, 0], -1, 1)
        np.testing.assert_allclose(np.diff(episode.state[:, 0]), moved, atol=1e-5)
        assert episode.images["front"].any()
        assert episode.info["label"] == "Seeker"
    assert "rollouts of Seeker" in store.spec.source


def test_an_interrupted_or_lost_episode_is_recorded_once(line_pool, seeking_actor, tmp_path):
    seen = []

    def kill(result):
        seen.append(result)
        if len(seen) == 5:
            raise Killed

    places = {"directory": tmp_path / "out", "record": tmp_path / "demos"}
    with pytest.raises(Killed):
        evaluate(line_pool(4), seeking_actor(3), POLICY, CONFIG, on_episode=kill, **places)
    # Killed between the store and the list of episodes: the episode is played again, but not recorded again.
    lines = (tmp_path / "out" / "episodes.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "out" / "episodes.jsonl").write_text("".join(lines[:-1]))
    pool = line_pool(4, lose={(100_011, 1): 1})
    summary = evaluate(pool, seeking_actor(3), POLICY, CONFIG, **places)
    assert summary.restarts == 1
    store = DemoStore.open(tmp_path / "demos")
    assert sorted(store.seeds) == summary.seeds
    assert verify_store(store) == []


def test_episodes_that_were_played_unrecorded_are_not_passed_over(line_pool, seeking_actor, tmp_path):
    evaluate(line_pool(4), seeking_actor(), POLICY, CONFIG, tmp_path / "out")
    with pytest.raises(UserError, match=r"were played without being recorded to .*, for example seed \d+"):
        evaluate(line_pool(4), seeking_actor(), POLICY, CONFIG, tmp_path / "out", record=tmp_path / "demos")
    assert not (tmp_path / "demos").exists()


def test_another_policys_episodes_are_not_mixed_in(line_pool, seeking_actor, tmp_path):
    evaluate(line_pool(4), seeking_actor(), POLICY, CONFIG, tmp_path / "out", record=tmp_path / "demos")
    other = EvaluatedPolicy(name="b", label="B", policy="bc", encoder="none", fingerprint="xyz")
    with pytest.raises(UserError, match=r"episodes of another policy, or .*, for example seed \d+"):
        evaluate(line_pool(4), seeking_actor(), other, CONFIG, tmp_path / "b", record=tmp_path / "demos")
    for otherwise in ({"acting": "4 actions of each chunk, noise_seed 1"}, {"sight": "cameras='{front: hand}'"}):
        again = dataclasses.replace(POLICY, **otherwise)
        with pytest.raises(UserError, match="episodes of another policy, or"):
            evaluate(line_pool(4), seeking_actor(), again, CONFIG, tmp_path / "c", record=tmp_path / "demos")


def test_further_episodes_of_another_version_of_the_simulator_are_told(line_pool, seeking_actor, tmp_path, capsys):
    evaluate(line_pool(4), seeking_actor(), POLICY, CONFIG, tmp_path / "a", record=tmp_path / "demos")
    assert "look different" not in capsys.readouterr().out
    pool = line_pool(4)
    pool.spec = dataclasses.replace(pool.spec, simulator_version="line 2.0")
    more = dataclasses.replace(CONFIG, first_seed=CONFIG.first_seed + CONFIG.episodes)
    evaluate(pool, seeking_actor(), POLICY, more, tmp_path / "b", record=tmp_path / "demos")
    assert f"the episodes in {tmp_path / 'demos'} are of " in capsys.readouterr().out


def test_a_store_of_another_environment_is_refused(line_pool, seeking_actor, make_spec, tmp_path):
    DemoStore.create(tmp_path / "demos", make_spec(task="Other"))
    with pytest.raises(UserError, match="different demonstrations: task"):
        evaluate(line_pool(4), seeking_actor(), POLICY, CONFIG, tmp_path / "out", record=tmp_path / "demos")
