import json
from dataclasses import replace

import pytest

from pixio_robot.errors import UserError
from pixio_robot.evaluation.config import EvaluateConfig
from pixio_robot.evaluation.evaluate import check_spec, evaluate
from pixio_robot.evaluation.results import EvaluatedPolicy, read_episodes, read_outcomes, read_summary, spec_hash
from pixio_robot.evaluation.sequential import StopConfig, StopRule
from pixio_robot.evaluation.statistics import Interval, clopper_pearson_interval, wilson_interval

POLICY = EvaluatedPolicy(name="seeker", label="Seeker", policy="bc", encoder="none", fingerprint="abc")
CONFIG = EvaluateConfig(episodes=20, num_slots=4, videos=2)


class Killed(Exception):
    pass


def _kill_after(count):
    seen = []

    def on_episode(result):
        seen.append(result)
        if len(seen) == count:
            raise Killed

    return on_episode


def test_a_finished_evaluation_reads_back(line_pool, seeking_actor, tmp_path):
    summary = evaluate(line_pool(4), seeking_actor(), POLICY, CONFIG, tmp_path)
    assert read_summary(tmp_path) == summary
    outcomes = read_outcomes(tmp_path, summary.seeds)
    assert [result.seed for result in outcomes] == CONFIG.seed_list()
    assert summary.successes == sum(result.success for result in outcomes)
    assert (summary.low, summary.high) == wilson_interval(summary.successes, 20)
    assert summary.spec_hash == spec_hash(line_pool(1).spec)
    assert "numpy" in summary.versions


def test_explicit_seeds_are_played_in_their_order_and_saved(line_pool, seeking_actor, tmp_path):
    config = EvaluateConfig(seeds=[9, 3, 7], videos=0, interval=Interval.CLOPPER_PEARSON)
    summary = evaluate(line_pool(2), seeking_actor(), POLICY, config, tmp_path)
    assert summary.seeds == [9, 3, 7]
    assert summary.interval == "Clopper-Pearson"
    assert (summary.low, summary.high) == clopper_pearson_interval(summary.successes, 3)
    assert {result.seed for result in read_episodes(tmp_path)} == {3, 7, 9}


def test_where_all_fail_all_films_are_failures_and_noted_in_order(line_pool, seeking_actor, tmp_path):
    config = EvaluateConfig(seeds=[0, 2, 3, 4, 6], num_slots=1, videos=4)
    summary = evaluate(line_pool(1), seeking_actor(noise=400.0), POLICY, config, tmp_path)
    assert summary.successes == 0
    filmed = [episode for episode in read_episodes(tmp_path) if episode.video]
    assert [episode.seed for episode in filmed] == [0, 2, 3, 4]
    assert all((tmp_path / str(episode.video)).is_file() for episode in filmed)


def test_an_environment_that_does_not_repeat_itself_is_noted_and_gives_no_pairs(line_pool, seeking_actor, tmp_path):
    first = evaluate(line_pool(4), seeking_actor(), POLICY, CONFIG, tmp_path / "first", repeats=False)
    assert not first.repeats
    assert not read_summary(tmp_path / "first").repeats
    versus = replace(CONFIG, stop=StopConfig(rule=StopRule.VERSUS, versus=str(tmp_path / "first")))
    with pytest.raises(UserError, match="does not reproduce an episode"):
        evaluate(line_pool(4), seeking_actor(), POLICY, versus, tmp_path / "second")


def test_time_to_success_and_return(line_pool, seeking_actor, tmp_path):
    summary = evaluate(line_pool(4), seeking_actor(noise=2.0), POLICY, CONFIG, tmp_path)
    episodes = read_episodes(tmp_path)
    steps = [episode.steps for episode in episodes if episode.success]
    assert 0 < len(steps) < len(episodes)
    assert summary.mean_steps_to_success == pytest.approx(sum(steps) / len(steps))
    assert summary.mean_seconds_to_success == pytest.approx(sum(steps) / len(steps) / 20)  # control_hz
    assert summary.mean_return == pytest.approx(sum(episode.episode_return for episode in episodes) / 20)


def test_time_to_success_ends_where_a_task_that_goes_on_was_first_solved(line_pool, seeking_actor, tmp_path):
    ending = evaluate(line_pool(4), seeking_actor(noise=0.0), POLICY, CONFIG, tmp_path / "ending")
    lasting = evaluate(line_pool(4, goes_on=True), seeking_actor(noise=0.0), POLICY, CONFIG, tmp_path / "lasting")
    assert lasting.successes == ending.successes == 20
    assert {episode.steps for episode in read_episodes(tmp_path / "lasting")} == {20}
    assert lasting.mean_steps_to_success == ending.mean_steps_to_success


def test_a_killed_evaluation_resumes_to_the_same_results(line_pool, seeking_actor, tmp_path):
    whole = evaluate(line_pool(4), seeking_actor(), POLICY, CONFIG, tmp_path / "whole")
    for count in (3, 9):
        with pytest.raises(Killed):
            evaluate(line_pool(4), seeking_actor(), POLICY, CONFIG, tmp_path / "cut", on_episode=_kill_after(count))
        with (tmp_path / "cut" / "episodes.jsonl").open("a") as file:
            file.write('{"seed": 100019, "succ')  # torn by the kill
    with pytest.raises(UserError, match="unfinished"):
        read_summary(tmp_path / "cut")
    before = len(read_episodes(tmp_path / "cut"))
    earlier, played = [], []
    resumed = evaluate(
        line_pool(2),
        seeking_actor(),
        POLICY,
        CONFIG,
        tmp_path / "cut",
        on_resume=earlier.extend,
        on_episode=played.append,
    )
    assert before == len(earlier) == 12
    assert len(played) == 20 - before
    assert resumed.resumed_episodes == before
    for key in ("seeds", "successes", "rate", "mean_steps_to_success"):
        assert getattr(resumed, key) == getattr(whole, key)


def test_a_finished_evaluation_is_not_played_again_and_can_grow_or_shrink(line_pool, seeking_actor, tmp_path):
    evaluate(line_pool(4), seeking_actor(), POLICY, CONFIG, tmp_path)
    played = []
    evaluate(line_pool(4), seeking_actor(), POLICY, CONFIG, tmp_path, on_episode=played.append)
    assert played == []
    more = EvaluateConfig(episodes=25, videos=0)
    assert evaluate(line_pool(4), seeking_actor(), POLICY, more, tmp_path, on_episode=played.append).episodes == 25
    assert len(played) == 5
    fewer = evaluate(
        line_pool(4), seeking_actor(), POLICY, EvaluateConfig(seeds=[100_003, 100_001], videos=0), tmp_path
    )
    assert (fewer.seeds, fewer.episodes, fewer.resumed_episodes) == ([100_003, 100_001], 2, 2)


def test_another_policy_or_environment_must_not_resume(line_pool, seeking_actor, make_spec, tmp_path):
    evaluate(line_pool(4), seeking_actor(), POLICY, CONFIG, tmp_path)
    retrained = EvaluatedPolicy(name="seeker", label="Seeker", policy="bc", encoder="none", fingerprint="xyz")
    with pytest.raises(UserError, match=r"another evaluation \(differs in fingerprint\)"):
        evaluate(line_pool(4), seeking_actor(), retrained, CONFIG, tmp_path)
    pool = line_pool(4, spec=make_spec(control_hz=10.0))
    with pytest.raises(UserError, match="differs in spec_hash"):
        evaluate(pool, seeking_actor(), POLICY, CONFIG, tmp_path)
    pool = line_pool(4, spec=make_spec(source="simulated: another scene"))
    with pytest.raises(UserError, match="differs in scene"):
        evaluate(pool, seeking_actor(), POLICY, CONFIG, tmp_path)
    with pytest.raises(UserError, match="differs in acting"):
        evaluate(line_pool(4), seeking_actor(), replace(POLICY, acting="1 action"), CONFIG, tmp_path)


def test_training_seeds_are_refused_before_anything_is_written(line_pool, seeking_actor, tmp_path):
    with pytest.raises(UserError, match="already used to collect"):
        evaluate(line_pool(4), seeking_actor(), POLICY, CONFIG, tmp_path / "out", train_seeds=[100_004])
    assert not (tmp_path / "out").exists()


def test_reading_what_is_not_there_or_broken(line_pool, seeking_actor, tmp_path):
    with pytest.raises(UserError, match="is not an evaluation"):
        read_summary(tmp_path)
    evaluate(line_pool(4), seeking_actor(), POLICY, CONFIG, tmp_path)
    with pytest.raises(UserError, match=r"lacks 1 of its summary's seeds, such as 7"):
        read_outcomes(tmp_path, [100_000, 7])
    summary = json.loads((tmp_path / "summary.json").read_text())
    del summary["rate"]
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(UserError, match=r"is not an evaluation summary.*'rate'"):
        read_summary(tmp_path)
    lines = (tmp_path / "episodes.jsonl").read_text().splitlines()
    (tmp_path / "episodes.jsonl").write_text("\n".join([*lines, lines[0], ""]))
    with pytest.raises(UserError, match="more than once"):
        read_episodes(tmp_path)
    (tmp_path / "episodes.jsonl").write_text('nonsense\n{"seed": 1}\n')
    with pytest.raises(UserError, match="Line 1 of"):
        read_episodes(tmp_path)


@pytest.mark.parametrize("name", ["summary.json", "episodes.jsonl"])
def test_files_of_the_same_name_that_no_evaluation_made_are_kept(line_pool, seeking_actor, tmp_path, name):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=f"has {name} but no identity"):
        evaluate(line_pool(2), seeking_actor(), POLICY, CONFIG, tmp_path)
    assert (tmp_path / name).read_text() == "mine"
    (tmp_path / name).unlink()
    evaluate(line_pool(2), seeking_actor(), POLICY, CONFIG, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_spec_hash_ignores_where_the_data_came_from(make_spec):
    assert spec_hash(make_spec()) == spec_hash(make_spec(source="elsewhere", licence="MIT"))
    assert spec_hash(make_spec()) != spec_hash(make_spec(task="Other"))
    check_spec(make_spec(), make_spec())
    with pytest.raises(UserError, match=r"control_hz: 20\.0 against 10\.0"):
        check_spec(make_spec(), make_spec(control_hz=10.0))
    with pytest.raises(UserError, match=r"against 10\.0\. Take another\.$"):
        check_spec(make_spec(), make_spec(control_hz=10.0), " Take another.")


@pytest.mark.parametrize("camera", ["frnt", None])
def test_nothing_stays_of_an_evaluation_that_is_refused(line_pool, seeking_actor, tmp_path, camera):
    pool = line_pool(2)
    if camera is None:
        pool.spec = replace(pool.spec, cameras={})
    with pytest.raises(UserError, match=r"Did you mean 'front'|environment has none; set videos=0"):
        evaluate(pool, seeking_actor(), POLICY, replace(CONFIG, video_camera=camera), tmp_path / "out")
    assert not (tmp_path / "out").exists()
