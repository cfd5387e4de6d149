"""Runs that differ in their seed only are one row, whatever else was varied is a column."""

import csv
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from pixio_robot.errors import UserError
from pixio_robot.evaluation.config import EvaluateConfig
from pixio_robot.evaluation.evaluate import evaluate
from pixio_robot.evaluation.results import EvaluatedPolicy
from pixio_robot.evaluation.sequential import StopConfig, StopRule
from pixio_robot.evaluation.statistics import wilson_interval
from pixio_robot.evaluation.sweep.collect import collect_sweep, student_interval
from pixio_robot.evaluation.sweep.page import write_sweep

SETTINGS = {
    f"{policy}_{seed}": {"optim.lr": rate, "loop.seed": seed, "label": policy, "loop.steps": 10}
    for policy, rate in (("slow", 1e-4), ("fast", 1e-3))
    for seed in (0, 1, 2)
}


@pytest.fixture
def sweep(line_pool, seeking_actor, tmp_path):
    for name, settings in SETTINGS.items():
        who = EvaluatedPolicy(
            name=name, label="Seeker", policy="bc", encoder="none", training_seed=settings["loop.seed"]
        )
        config = EvaluateConfig(episodes=10, videos=0, first_seed=100 * settings["loop.seed"])
        evaluate(line_pool(4), seeking_actor(), who, config, tmp_path / "nested" / name)
    return tmp_path


def test_repetitions_are_pooled_and_variants_told_apart(sweep) -> None:
    rows = collect_sweep(sweep, lambda path: SETTINGS[path.name])
    assert [row.settings for row in sorted(rows, key=lambda row: row.settings["optim.lr"])] == [
        {"optim.lr": 1e-4},
        {"optim.lr": 1e-3},
    ]
    for row in rows:
        assert sorted(row.training_seeds) == [0, 1, 2]
        assert row.episodes == 30
        rates = [run.rate for run in row.runs]
        assert row.rate == pytest.approx(sum(rates) / 3)
        student, pooled = student_interval(rates), wilson_interval(row.successes, row.episodes)  # no shared seeds
        assert (row.low, row.high) == (min(student[0], pooled[0]), max(student[1], pooled[1]))


def test_policies_that_played_the_same_seeds_count_for_fewer_episodes(line_pool, seeking_actor, tmp_path) -> None:
    for seed in range(3):
        who = EvaluatedPolicy(
            name=f"of_{seed}", label="Seeker", policy="bc", encoder="none", training_seed=seed, fingerprint=str(seed)
        )
        evaluate(line_pool(4), seeking_actor(), who, EvaluateConfig(episodes=10, videos=0), tmp_path / who.name)
    (row,) = collect_sweep(tmp_path, lambda path: {})
    assert row.successes == 3 * row.runs[0].successes, "the same policy three times over"
    assert (row.low, row.high) == pytest.approx(wilson_interval(row.runs[0].successes, 10))


def test_a_single_run_keeps_its_own_interval(sweep) -> None:
    rows = collect_sweep(sweep / "nested" / "slow_0", lambda path: SETTINGS[path.name])
    assert len(rows) == 1
    assert (rows[0].low, rows[0].high) == (rows[0].runs[0].low, rows[0].runs[0].high)
    assert "one training seed" in rows[0].interval


def test_episodes_count_once_however_often_they_were_played(line_pool, seeking_actor, tmp_path) -> None:
    def play(name: str, episodes: int, first_seed: int = 0, **who) -> None:
        policy = EvaluatedPolicy(name=name, label="Seeker", policy="bc", encoder="none", **who)
        config = EvaluateConfig(episodes=episodes, videos=0, first_seed=first_seed)
        evaluate(line_pool(4), seeking_actor(), policy, config, tmp_path / name)

    play("short", 4, fingerprint="one")
    play("long", 8, fingerprint="one")
    play("elsewhere", 3, first_seed=50, fingerprint="one")
    play("other", 8, fingerprint="two")
    play("trials/step_1/evaluation", 8, fingerprint="early")
    (row,) = collect_sweep(tmp_path, lambda path: {}, leave_out=["trials"])
    assert sorted((run.name, run.episodes) for run in row.runs) == [("elsewhere", 3), ("long", 8), ("other", 8)]


def test_what_only_some_kinds_of_policy_can_set_tells_them_apart(line_pool, seeking_actor, tmp_path) -> None:
    settings = {
        "bc": {"policy.width": 8},
        "few": {"policy.inference_steps": 4},
        "many": {"policy.inference_steps": 16},
    }
    for name in settings:
        kind = "bc" if name == "bc" else "diffusion"
        who = EvaluatedPolicy(name=name, label="Seeker", policy=kind, encoder="none", training_seed=0)
        evaluate(line_pool(4), seeking_actor(), who, EvaluateConfig(episodes=4, videos=0), tmp_path / name)
    rows = collect_sweep(tmp_path, lambda path: settings[path.name])
    assert [len(row.runs) for row in rows] == [1, 1, 1]
    assert {row.name for row in rows} == {
        "Seeker (bc)",
        "Seeker (diffusion, policy.inference_steps=4)",
        "Seeker (diffusion, policy.inference_steps=16)",
    }


def test_rows_of_other_environments_have_names_of_their_own(line_pool, make_spec, seeking_actor, tmp_path) -> None:
    for name, changes in (("a", {}), ("b", {"control_hz": 10.0}), ("c", {"robot": "Dot"})):
        who = EvaluatedPolicy(name=name, label="Seeker", policy="bc", encoder="none", training_seed=0)
        pool = line_pool(4, spec=make_spec(**changes))
        evaluate(pool, seeking_actor(), who, EvaluateConfig(episodes=3, videos=0), tmp_path / name)
    assert len({row.name for row in collect_sweep(tmp_path, lambda path: {})}) == 3
    (name,) = {row.name for row in collect_sweep(tmp_path, lambda path: {}, leave_out=["b", "c"])}
    assert name == "Seeker (bc)"
    names = {row.name for row in collect_sweep(tmp_path, lambda path: {}, leave_out=["b"])}
    assert names == {"Seeker (bc, robot=Dot)", "Seeker (bc, robot=Point)"}


def test_policies_of_a_store_that_has_grown_are_no_repetitions(line_pool, seeking_actor, tmp_path) -> None:
    contents = {"a": "60 episodes", "b": "240 episodes", "c": "240 episodes"}
    for seed, name in enumerate(contents):
        who = EvaluatedPolicy(name=name, label="Seeker", policy="bc", encoder="none", training_seed=seed)
        evaluate(line_pool(4), seeking_actor(), who, EvaluateConfig(episodes=3, videos=0), tmp_path / name)

    def settings_of(path: Path) -> dict[str, Any]:
        return {"data": "demos", "loop.seed": path.name, "contents": {"data": contents[path.name], "encoder.path": "e"}}

    rows = {row.name: len(row.runs) for row in collect_sweep(tmp_path, settings_of)}
    column = "contents of data"
    assert rows == {f"Seeker (bc, {column}=60 episodes)": 1, f"Seeker (bc, {column}=240 episodes)": 2}
    (row,) = collect_sweep(tmp_path, settings_of, leave_out=["a"])
    assert row.name == "Seeker (bc)"
    (row,) = collect_sweep(tmp_path, lambda path: {} if path.name == "b" else settings_of(path), leave_out=["a"])
    assert len(row.runs) == 2, "unknown contents are not other ones"


@pytest.mark.parametrize(("key", "value"), [("sight", "by_position=true"), ("acting", "4 actions of each chunk")])
def test_a_policy_that_sees_or_acts_otherwise_is_another_row(line_pool, seeking_actor, tmp_path, key, value) -> None:
    for name, changes in (("a", {}), ("b", {key: value})):
        who = EvaluatedPolicy(name=name, label="Seeker", policy="bc", encoder="none", fingerprint="one", **changes)
        evaluate(line_pool(4), seeking_actor(), who, EvaluateConfig(episodes=3, videos=0), tmp_path / name)
    names = {row.name for row in collect_sweep(tmp_path, lambda path: {"loop.steps": 10})}
    assert names == {f"Seeker (bc, {key}=–)", f"Seeker (bc, {key}={value})"}
    assert len(collect_sweep(tmp_path, lambda path: {})) == 2


def test_episodes_played_in_two_evaluations_are_no_second_training(line_pool, seeking_actor, tmp_path) -> None:
    for seed in (0, 1):
        for part in (0, 1):
            who = EvaluatedPolicy(
                name="s", label="Seeker", policy="bc", encoder="none", training_seed=seed, fingerprint=f"weights {seed}"
            )
            config = EvaluateConfig(episodes=8 - 4 * seed, videos=0, first_seed=100 * part)
            evaluate(line_pool(4), seeking_actor(noise=0.5 + 2 * seed), who, config, tmp_path / f"{seed}_{part}")
    (row,) = collect_sweep(tmp_path, lambda path: {})
    assert len(row.runs) == 4
    assert len(row.rates) == 2
    assert row.rates[0] != row.rates[1]
    assert row.rate == sum(row.rates) / 2 != row.successes / row.episodes, "of policies, not of episodes"
    assert (row.low, row.high) == student_interval(row.rates)
    assert "2 training seeds" in row.interval
    (alone,) = collect_sweep(tmp_path, lambda path: {}, leave_out=["1_0", "1_1"])
    assert (alone.low, alone.high) == wilson_interval(alone.successes, 16)


def test_what_an_interval_over_several_runs_does_not_account_for_is_said(line_pool, seeking_actor, tmp_path) -> None:
    for part, stop in enumerate((StopConfig(), StopConfig(rule=StopRule.RATE, rate=0.2))):
        who = EvaluatedPolicy(name="s", label="Seeker", policy="bc", encoder="none", fingerprint="one")
        config = EvaluateConfig(episodes=30, videos=0, first_seed=100 * part, stop=stop)
        evaluate(line_pool(4), seeking_actor(), who, config, tmp_path / str(part))
    (row,) = collect_sweep(tmp_path, lambda path: {})
    assert row.interval.endswith("; some runs may have stopped early, which it does not account for")


def test_files(sweep) -> None:
    page = write_sweep(collect_sweep(sweep, lambda path: SETTINGS[path.name]), "Rates", sweep / "sweep.html")
    text = page.read_text()
    assert text.count("Seeker") == 2
    assert "optim.lr=0.001" in text
    assert "http" not in text.replace("http://www.w3.org", "")
    figure = ElementTree.fromstring((sweep / "sweep.svg").read_text())
    words = [element.text for element in figure.iter("{http://www.w3.org/2000/svg}text")]
    assert words.count("Line") == 1
    assert "Seeker (bc, optim.lr=0.001)" in words
    rows = list(csv.DictReader((sweep / "sweep.csv").open()))
    assert {row["optim.lr"] for row in rows} == {"0.0001", "0.001"}
    assert (sweep / "sweep.md").read_text().count("| Line |") == 2


def test_student_interval_against_a_table() -> None:
    # t(0.975, 2) = 4.3027; mean 0.5, standard error 0.1 / sqrt(3)
    low, high = student_interval([0.4, 0.5, 0.6])
    assert (low, high) == pytest.approx((0.5 - 4.3027 * 0.1 / 3**0.5, 0.5 + 4.3027 * 0.1 / 3**0.5), abs=1e-4)
    assert student_interval([0.0, 1.0]) == (0.0, 1.0)


def test_nothing_to_report(tmp_path) -> None:
    with pytest.raises(UserError, match="no finished evaluation"):
        collect_sweep(tmp_path, lambda path: {})
    with pytest.raises(UserError, match="no directory"):
        collect_sweep(tmp_path / "x", lambda path: {})


def test_rows_are_held_against_the_one_that_is_named(sweep) -> None:
    rows = collect_sweep(sweep, lambda path: SETTINGS[path.name])
    slow = "Seeker (bc, optim.lr=0.0001)"
    page = write_sweep(rows, "Rates", sweep / "sweep.html", slow).read_text()
    assert page.count(f"Against {slow}: 0 points") == 1  # both seek alike
    fast, own = sorted(csv.DictReader((sweep / "sweep.csv").open()), key=lambda row: row["optim.lr"], reverse=True)
    assert (fast[f"difference against {slow}"], own[f"difference against {slow}"]) == ("0.0", "")
    table = [line for line in (sweep / "sweep.md").read_text().splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    assert "p = 1.00" in "".join(table)
    with pytest.raises(UserError, match="Unknown row of the sweep 'Seker'"):
        write_sweep(rows, "Rates", sweep / "sweep.html", "Seker")
