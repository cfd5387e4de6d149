"""Confidence sequences and the rules built on them; their error rate by simulation."""

import numpy as np
import pytest

from pixio_robot.errors import UserError
from pixio_robot.evaluation.config import EvaluateConfig
from pixio_robot.evaluation.evaluate import evaluate
from pixio_robot.evaluation.results import SEQUENTIAL, EvaluatedPolicy, read_summary
from pixio_robot.evaluation.sequential import StopConfig, StopRule, confidence_sequence, make_stop_check
from pixio_robot.evaluation.statistics import wilson_interval
from pixio_robot.types import EpisodeResult


def episodes(outcomes: list[bool]) -> list[EpisodeResult]:
    end = {"steps": 1, "episode_return": 0.0, "highest_reward": 0.0}
    return [EpisodeResult(seed=i, success=bool(s), **end) for i, s in enumerate(outcomes)]


def ever_missed(interval, rate: float, runs: int, episodes: int) -> float:
    """Share of simulated evaluations whose interval misses the true rate at some episode from the tenth on."""
    rng = np.random.default_rng(0)
    counts = np.cumsum(rng.random((runs, episodes)) < rate, axis=1)
    known: dict[tuple[int, int], bool] = {}

    def misses(successes: int, n: int) -> bool:
        if (successes, n) not in known:
            low, high = interval(successes, n)
            known[successes, n] = not low <= rate <= high
        return known[successes, n]

    return float(np.mean([any(misses(int(run[n - 1]), n) for n in range(10, episodes + 1)) for run in counts]))


@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
def test_error_rate_over_all_looks(rate: float) -> None:
    assert ever_missed(confidence_sequence, rate, runs=1000, episodes=100) <= 0.05


def test_a_wilson_interval_looked_at_after_every_episode_breaks_that_promise() -> None:
    assert ever_missed(wilson_interval, 0.5, runs=1000, episodes=100) > 0.15


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (0, 10), (10, 10), (3, 10), (50, 100)])
def test_wider_than_wilson_and_around_the_rate(successes: int, n: int) -> None:
    low, high = confidence_sequence(successes, n)
    assert 0 <= low <= (successes / n if n else 0.5) <= high <= 1
    if n:
        wilson = wilson_interval(successes, n)
        assert high - low > wilson[1] - wilson[0]


def test_mirrored_outcomes_mirror_the_bounds() -> None:
    low, high = confidence_sequence(3, 17)
    assert confidence_sequence(14, 17) == pytest.approx((1 - high, 1 - low))


def test_never_stops_by_default() -> None:
    assert make_stop_check(StopConfig(), {})(episodes([True] * 500)) == ""


def test_width() -> None:
    reason = make_stop_check(StopConfig(rule=StopRule.WIDTH, half_width=0.1), {})
    assert reason(episodes([True, False] * 20)) == ""
    assert "10%" in reason(episodes([True, False] * 200))


def test_rate() -> None:
    reason = make_stop_check(StopConfig(rule=StopRule.RATE, rate=0.5), {})
    assert reason(episodes([True, False] * 50)) == ""
    assert "above" in reason(episodes([True] * 20))
    assert "below" in reason(episodes([False] * 20))


def test_versus_looks_at_the_seeds_that_one_side_solves() -> None:
    reference = {i: i % 2 == 0 for i in range(100)}
    reason = make_stop_check(StopConfig(rule=StopRule.VERSUS, versus="other"), reference)
    assert reason(episodes([i % 2 == 0 for i in range(100)])) == ""
    assert "better" in reason(episodes([True] * 40))
    assert "worse" in reason(episodes([False] * 40))


def test_nothing_is_decided_by_a_handful() -> None:
    assert make_stop_check(StopConfig(rule=StopRule.RATE, rate=0.5), {})(episodes([True] * 9)) == ""


def test_ten_episodes_are_enough_and_less_confidence_needs_fewer() -> None:
    sure, bold = (
        make_stop_check(StopConfig(rule=StopRule.RATE, rate=0.5, confidence=confidence), {})
        for confidence in (0.95, 0.5)
    )
    assert "above" in sure(episodes([True] * 10))
    outcomes = [True, True, False, True] * 5
    stops = [next(n for n in range(1, 400) if reason(episodes((outcomes * 20)[:n]))) for reason in (sure, bold)]
    assert stops[0] > stops[1] >= 10
    low, high = confidence_sequence(sum(outcomes), len(outcomes), 0.5)
    usual = confidence_sequence(sum(outcomes), len(outcomes))
    assert usual[0] < low < high < usual[1]


def test_a_rate_is_excluded_where_the_likelihood_against_it_is_twenty_to_one() -> None:
    """With a uniform prior, that of n successes of n at the rate r is 1 / ((n + 1) r^n)."""
    low, high = confidence_sequence(10, 10)
    assert high == 1
    assert 11 * low**10 == pytest.approx(0.05)


def test_settings_are_checked() -> None:
    with pytest.raises(UserError, match="half_width"):
        StopConfig(half_width=0)
    with pytest.raises(UserError, match=r"stop\.versus"):
        StopConfig(rule=StopRule.VERSUS)


POLICY = EvaluatedPolicy(name="seeker", label="Seeker", policy="bc", encoder="none")
CONFIG = EvaluateConfig(episodes=200, videos=2, stop=StopConfig(rule=StopRule.RATE, rate=0.2))


def test_an_evaluation_ends_early_and_says_why(line_pool, seeking_actor, tmp_path) -> None:
    summary = evaluate(line_pool(4), seeking_actor(), POLICY, CONFIG, tmp_path)
    assert summary.episodes < 200
    assert "above 20%" in summary.stopped
    assert summary.interval == SEQUENTIAL
    assert (summary.low, summary.high) == confidence_sequence(summary.successes, summary.episodes)
    assert read_summary(tmp_path) == summary


def test_where_it_ends_does_not_depend_on_how_many_play_at_once(line_pool, seeking_actor, tmp_path) -> None:
    seeds = [
        evaluate(line_pool(slots), seeking_actor(), POLICY, CONFIG, tmp_path / str(slots)).seeds for slots in (1, 3, 16)
    ]
    assert seeds[0] == seeds[1] == seeds[2]


def test_versus_needs_the_same_seeds_in_the_same_scene(line_pool, seeking_actor, make_spec, tmp_path) -> None:
    evaluate(line_pool(4), seeking_actor(), POLICY, EvaluateConfig(episodes=20, videos=0), tmp_path / "short")
    stop = StopConfig(rule=StopRule.VERSUS, versus=str(tmp_path / "short"))
    with pytest.raises(UserError, match="no episode with seed"):
        evaluate(line_pool(4), seeking_actor(), POLICY, EvaluateConfig(episodes=30, stop=stop), tmp_path / "long")
    pool = line_pool(4, spec=make_spec(source="simulated: another scene"))
    with pytest.raises(UserError, match="was evaluated in another environment"):
        evaluate(pool, seeking_actor(), POLICY, EvaluateConfig(episodes=20, stop=stop), tmp_path / "elsewhere")
