import dataclasses
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from envs.config import EnvConfig
from envs.experts.disturbance import Disturbance
from envs.recording import collect as collecting
from envs.recording.collect import JOURNAL_FILE, CollectConfig, collect
from envs.recording.episodes import ExpertEpisodeRecorder, record_expert_episode
from envs.registry import make_env
from envs.spec import make_env_spec
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.errors import UserError
from pixio_robot.files import read_json
from pixio_robot.types import Episode

pytestmark = pytest.mark.sim
# A horizon that about half of the seeds miss.
ENV = EnvConfig(image_size=32, cameras=["hand"], horizon=27)
BLIND = EnvConfig(task="TabletopReach", cameras=[])


def config(out, **changes):
    return CollectConfig(**{"out": str(out), "episodes": 4, "workers": 1, "noise": 0.0} | changes)


def content(path):
    store = DemoStore.open(path)
    episodes = [store.episode(number) for number in range(len(store))]
    return [
        (episode.seed, episode.state.tobytes(), episode.actions.tobytes(), episode.images["hand"].tobytes())
        for episode in episodes
    ]


@pytest.mark.slow
def test_the_store_is_the_same_however_it_came_about(tmp_path):
    report = collect(ENV, config(tmp_path / "one"))
    assert report.kept == len(report.seeds) == 4
    assert report.failed == len(report.failed_seeds) > 0
    assert sorted(report.seeds + report.failed_seeds) == list(range(max(report.seeds) + 1))
    store = DemoStore.open(tmp_path / "one")
    assert store.seeds == report.seeds
    assert all(store.successes)
    episode = store.episode(0)
    assert np.abs(episode.actions).max() <= 1
    # Stopped after two episodes, then continued by two processes.
    collect(ENV, config(tmp_path / "two", episodes=2))
    again = collect(ENV, config(tmp_path / "two", workers=2))
    assert (again.seeds, again.failed_seeds) == (report.seeds, report.failed_seeds)
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_a_worker_collects_successes(tmp_path):
    collect(EnvConfig(task="TabletopPick", image_size=32), config(tmp_path / "demos", episodes=2))
    store = DemoStore.open(tmp_path / "demos")
    assert store.spec.action_dim == 4
    assert list(store.successes) == [True, True]


def test_each_action_is_recorded_beside_what_was_seen_before_it():
    env = make_env(BLIND)
    episode = record_expert_episode(env, 3)
    frame = env.reset(3)
    for state, action in zip(episode.state, episode.actions, strict=True):
        np.testing.assert_array_equal(state, frame.state)
        result = env.step(action)
        frame = result.frame
    assert result.done
    env.close()


def test_a_success_that_was_undone_is_recorded_as_none():
    env = make_env(BLIND)
    recorder = ExpertEpisodeRecorder(env, 3, env.reset(3), Disturbance())
    for success in (True, False):
        recorder.add(dataclasses.replace(env.step(recorder.act()), success=success))
    assert not recorder.episode().success
    env.close()


def test_expert_failures_end_in_an_error_that_says_what_to_change(tmp_path):
    impossible = EnvConfig(cameras=[], horizon=2)
    with pytest.raises(UserError, match=r"failed 3 episodes in a row.*mistakes \(0\.3\).*horizon"):
        collect(impossible, config(tmp_path / "none", max_failures=3, mistakes=0.3))
    assert read_json(tmp_path / "none" / JOURNAL_FILE)["failed_seeds"] == [0, 1, 2]


def test_other_stores_are_left_alone(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "data").touch()
    for overwrite in (False, True):
        with pytest.raises(UserError, match="precious"):
            collect(ENV, config(tmp_path / "precious", overwrite=overwrite))
    assert (tmp_path / "precious" / "data").exists()
    with pytest.raises(UserError, match="failed 1"):
        collect(dataclasses.replace(BLIND, horizon=1), config(tmp_path / "mine", max_failures=1))
    with pytest.raises(UserError, match=r"env\.horizon=1, not 2"):
        collect(dataclasses.replace(BLIND, horizon=2), config(tmp_path / "mine"))


@pytest.fixture
def played(monkeypatch):
    """Episodes without a simulator: `played.failures` are the seeds that fail, `played.first` where each call began,
    and `played.end` a seed at which the session is interrupted."""
    made = SimpleNamespace(failures=set(), first=[], end=None)

    def episodes(env_config, settings, takeovers, first):
        spec = make_env_spec(env_config)
        made.first.append(first)
        for seed in itertools.count(first):
            if seed == made.end:
                raise KeyboardInterrupt
            state, actions = (np.zeros((2, size), np.float32) for size in (spec.state_dim, spec.action_dim))
            yield (
                seed,
                Episode(
                    images={},
                    state=state,
                    actions=actions,
                    rewards=np.zeros(2, np.float32),
                    success=seed not in made.failures,
                    seed=seed,
                ),
            )

    monkeypatch.setattr(collecting, "_episodes", episodes)
    return made


def test_the_first_seeds_that_succeed_are_kept_and_none_is_played_again(played, tmp_path):
    played.failures, played.end = {1, 2, 4, 6}, 3
    settings = config(tmp_path / "demos", episodes=3, max_failures=3)
    with pytest.raises(KeyboardInterrupt):
        collect(BLIND, settings)
    played.end = None
    report = collect(BLIND, settings)
    assert (report.seeds, report.failed_seeds, played.first) == ([0, 3, 5], [1, 2, 4], [0, 3])
    assert collect(BLIND, config(tmp_path / "all", success_only=False)).seeds == [0, 1, 2, 3]


def test_only_failures_in_a_row_end_a_collection(played, tmp_path):
    played.failures = {1, 3, 5}
    assert collect(BLIND, config(tmp_path / "demos", max_failures=2)).seeds == [0, 2, 4, 6]


def test_a_store_is_not_continued_with_other_settings(played, tmp_path):
    collect(BLIND, config(tmp_path))
    for name, value in (("first_seed", 7), ("noise", 0.2), ("mistakes", 0.2), ("success_only", False)):
        with pytest.raises(UserError, match=f"was collected with {name}=.*, not {value}"):
            collect(BLIND, config(tmp_path, **{name: value}))
    assert config(tmp_path, noise=0.1, mistakes=0.2).disturbance == Disturbance(noise=0.1, mistakes=0.2)


def test_a_store_that_goes_on_with_another_simulator_says_so(played, tmp_path, monkeypatch, capsys):
    collect(BLIND, config(tmp_path / "old", success_only=False, episodes=1))
    before = make_env_spec(BLIND).simulator_version
    monkeypatch.setattr("envs.seeded_spec.installed_versions", lambda *packages: "mujoco 99")
    collect(BLIND, config(tmp_path / "old", success_only=False, episodes=2))
    told = capsys.readouterr().out
    assert f"the episodes in {tmp_path / 'old'} are of {before}, and further ones of mujoco 99: they may" in told
    monkeypatch.undo()
    collect(BLIND, config(tmp_path / "new", success_only=False, episodes=1))
    assert "further ones" not in capsys.readouterr().out


def test_wrong_numbers_are_named():
    for wrong in ({"out": ""}, {"episodes": 0}, {"noise": -1.0}, {"workers": -1}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            CollectConfig(**wrong)


@pytest.mark.slow
@pytest.mark.timeout(900)  # three collections, with a machine that does other things besides
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_collection_goes_on_where_it_was(tmp_path, blow):
    script = tmp_path / "collecting.py"
    script.write_text(
        "from test_collect import ENV, collect, config\n"
        f"if __name__ == '__main__':\n    collect(ENV, config({str(tmp_path / 'two')!r}, episodes=200, workers=2))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen([sys.executable, str(script)], env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 250
    while len(list((tmp_path / "two" / "episodes").glob("0*"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(blow)
    process.wait(timeout=200)
    seeds = DemoStore.open(tmp_path / "two").seeds
    episodes = len(seeds) + 2
    continued = collect(ENV, config(tmp_path / "two", episodes=episodes))
    assert continued.seeds == collect(ENV, config(tmp_path / "one", episodes=episodes)).seeds
    assert content(tmp_path / "one") == content(tmp_path / "two")
