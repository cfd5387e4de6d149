"""Differences over training seeds: Welch's t, with no less error than the episodes alone would give."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from pixio_robot.errors import UserError
from pixio_robot.evaluation.results import EvaluationSummary
from pixio_robot.evaluation.sweep.collect import SweepRow
from pixio_robot.evaluation.sweep.contrast import find_rows, welch_contrast


def row(label: str, *successes: int, episodes: int = 100, task: str = "Line", spec: str = "x") -> SweepRow:
    run = EvaluationSummary(
        name=label,
        label=label,
        policy="bc",
        encoder="none",
        task=task,
        robot="Point",
        render_quality="fast",
        spec_hash=spec,
        seeds=list(range(episodes)),
        episodes=episodes,
        successes=0,
        rate=0.0,
        low=0.0,
        high=1.0,
        interval="Wilson",
        mean_steps_to_success=None,
        mean_seconds_to_success=None,
        mean_return=0.0,
        mean_highest_reward=0.0,
        scene="",
        repeats=True,
        stopped="",
        restarts=0,
        wall_seconds=1.0,
        resumed_episodes=0,
        versions={},
        finished_at="",
    )
    rates = [count / episodes for count in successes]
    return SweepRow(
        label=label,
        policy="bc",
        task=task,
        settings={},
        distinguishing=[],
        runs=[dataclasses.replace(run, successes=count, rate=count / episodes) for count in successes],
        rates=rates,
        rate=float(np.mean(rates)),
        low=0.0,
        high=1.0,
        interval="",
    )


def test_where_seeds_differ_much_it_is_welchs_test() -> None:
    first, second = row("a", 90, 50, 70), row("b", 20, 60, 10, 40)
    expected = stats.ttest_ind(first.rates, second.rates, equal_var=False)
    bounds = expected.confidence_interval(0.95)
    found = welch_contrast(first, second)
    assert found is not None
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((bounds.low, bounds.high))
    assert found.difference == pytest.approx(0.7 - 0.325)


def test_seeds_that_agree_by_luck_are_no_certainty() -> None:
    found = welch_contrast(row("a", 50, 50), row("b", 52, 52))
    assert found is not None
    assert found.p_value > 0.5
    assert found.low < 0 < found.high
    nothing = welch_contrast(row("a", 0, 0), row("b", 0, 0))
    assert nothing is not None
    assert nothing.p_value == 1
    clear = welch_contrast(row("a", 100, 100, 100), row("b", 0, 0, 0))
    assert clear is not None
    assert clear.p_value < 0.001


@pytest.mark.parametrize("spread", [0.0, 0.1])
def test_it_errs_no_more_often_than_it_says(spread: float) -> None:
    generator = np.random.default_rng(0)

    def draw(rate: float) -> tuple[int, ...]:
        own = np.clip(generator.normal(rate, spread, 3), 0, 1)
        return tuple(generator.binomial(100, own).tolist())

    wrong, missed, runs = 0, 0, 600
    for _ in range(runs):
        null, real = (
            welch_contrast(row("a", *draw(0.6)), row("b", *draw(0.6))),
            welch_contrast(row("a", *draw(0.7)), row("b", *draw(0.4))),
        )
        assert null is not None
        assert real is not None
        wrong += null.p_value < 0.05
        missed += not real.low <= 0.3 <= real.high
    assert wrong / runs < 0.06
    assert missed / runs < 0.07


def test_one_training_seed_and_other_environments_are_not_compared() -> None:
    assert welch_contrast(row("a", 50), row("b", 40, 60)) is None
    assert welch_contrast(row("a", 50, 40), row("b", 40, 60, spec="y")) is None


def test_rows_are_found_by_name_or_label_in_every_task() -> None:
    rows = [
        row("a", 5, 6),
        row("a", 7, 8, task="Plane"),
        row("b", 1, 2),
        dataclasses.replace(row("b", 1, 2), policy="flow"),
    ]
    assert [found.task for found in find_rows(rows, "a")] == ["Line", "Plane"]
    assert find_rows(rows, "b (flow)") == [rows[3]]
    with pytest.raises(UserError, match=r"several rows of Line; use one of: b \(bc\); b \(flow\)"):
        find_rows(rows, "b")
    with pytest.raises(UserError, match="Unknown row of the sweep 'c'"):
        find_rows(rows, "c")
