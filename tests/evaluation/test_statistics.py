import numpy as np
import pytest

from pixio_robot.errors import UserError
from pixio_robot.evaluation.statistics import (
    Interval,
    clopper_pearson_interval,
    clustered_wilson_interval,
    compare_paired,
    effective_episodes,
    mcnemar_exact,
    paired_difference_interval,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe 1998, Statist. Med. 17:857, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_against_published_values(successes, n, low, high):
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_is_symmetric_and_holds_the_rate():
    for n in (1, 2, 10, 100):
        for successes in range(n + 1):
            low, high = wilson_interval(successes, n)
            assert 0 <= low <= successes / n <= high <= 1
            assert wilson_interval(n - successes, n) == pytest.approx((1 - high, 1 - low))
    for successes, n in ((0, 0), (-1, 5), (6, 5)):
        with pytest.raises(ValueError, match="not a proportion"):
            wilson_interval(successes, n)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # The same table, method 5.
    [(81, 263, 0.2527, 0.3676), (15, 148, 0.0578, 0.1617), (0, 20, 0.0, 0.1684), (1, 29, 0.0009, 0.1776)],
)
def test_clopper_pearson_against_published_values(successes, n, low, high):
    assert clopper_pearson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)
    assert Interval.CLOPPER_PEARSON(successes, n) == clopper_pearson_interval(successes, n)
    assert Interval.WILSON(successes, n) == wilson_interval(successes, n)


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.5, 0.97])
def test_clopper_pearson_never_covers_less_than_it_says(rate):
    n = 30
    draws = np.random.default_rng(0).binomial(n, rate, 4000)
    bounds = np.array([clopper_pearson_interval(successes, n) for successes in range(n + 1)])[draws]
    assert ((bounds[:, 0] <= rate) & (rate <= bounds[:, 1])).mean() >= 0.95 - 0.01


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.5, 0.9])
def test_wilson_covers_the_truth_about_as_often_as_it_says(rate):
    n = 100
    draws = np.random.default_rng(0).binomial(n, rate, 4000)
    bounds = np.array([wilson_interval(successes, n) for successes in range(n + 1)])[draws]
    coverage = ((bounds[:, 0] <= rate) & (rate <= bounds[:, 1])).mean()
    assert 0.925 < coverage < 0.98


def test_paired_interval_against_a_published_value():
    # Newcombe 1998, Statist. Med. 17:2635, method 10 for the table 36, 12, 2, 0.
    assert paired_difference_interval(36, 12, 2, 0) == pytest.approx((0.0569, 0.3404), abs=5e-5)


def test_paired_interval_is_antisymmetric_and_bounded():
    for cells in ((10, 5, 3, 2), (0, 0, 7, 0), (5, 0, 0, 0), (0, 0, 0, 4), (1, 1, 1, 1)):
        both, first, second, neither = cells
        low, high = paired_difference_interval(*cells)
        assert -1 <= low <= (first - second) / sum(cells) <= high <= 1
        assert paired_difference_interval(both, second, first, neither) == pytest.approx((-high, -low))


def _paired_draws(generator, rate_first, rate_second, shared, n=100):
    """Outcomes that agree by luck of the seed in a `shared` part of the cases."""
    seed_luck, own = generator.random(n), generator.random((2, n))
    luck = np.where(generator.random(n) < shared, seed_luck, own)
    return luck[0] < rate_first, luck[1] < rate_second


@pytest.mark.parametrize("shared", [0.0, 0.7])
def test_paired_interval_covers_and_the_test_keeps_its_level(shared):
    generator = np.random.default_rng(1)
    covered, rejected, runs = 0, 0, 800
    for _ in range(runs):
        first, second = _paired_draws(generator, 0.7, 0.4, shared)
        comparison = compare_paired(dict(enumerate(first)), dict(enumerate(second)))
        covered += comparison.low <= 0.3 <= comparison.high
        first, second = _paired_draws(generator, 0.5, 0.5, shared)
        rejected += compare_paired(dict(enumerate(first)), dict(enumerate(second))).p_value < 0.05
    assert 0.92 < covered / runs < 0.995
    assert rejected / runs <= 0.06


def test_mcnemar_by_hand():
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(5, 0) == mcnemar_exact(0, 5) == pytest.approx(2 / 2**5)
    assert mcnemar_exact(1, 7) == pytest.approx(2 * (1 + 8) / 2**8)
    assert mcnemar_exact(4, 4) == 1.0
    assert 0 <= mcnemar_exact(900, 100) < 1e-100
    assert mcnemar_exact(np.int64(40), np.int64(30)) == mcnemar_exact(40, 30) == pytest.approx(0.282, abs=1e-3)


def test_comparison_uses_shared_seeds_only():
    first = {1: True, 2: True, 3: False, 4: True, 9: False}
    second = {1: True, 2: False, 3: False, 4: False, 8: True}
    comparison = compare_paired(first, second)
    assert (comparison.both, comparison.only_first, comparison.only_second, comparison.neither) == (1, 2, 0, 1)
    assert comparison.n == 4
    assert comparison.difference == 0.5
    numpy_bools = compare_paired(dict(enumerate(np.ones(100, bool))), dict(enumerate(np.zeros(100, bool))))
    assert 0 < numpy_bools.p_value < 1e-29
    with pytest.raises(UserError, match="share no seed"):
        compare_paired({1: True}, {2: True})


def test_episodes_of_different_policies_from_the_same_states_are_worth_fewer():
    alike = {seed: seed % 3 > 0 for seed in range(30)}
    assert effective_episodes([alike]) == 30
    assert effective_episodes([alike, alike, alike]) == pytest.approx(30)
    assert effective_episodes([alike, {seed + 30: success for seed, success in alike.items()}]) == 60
    solved = dict.fromkeys(range(30), True)
    assert effective_episodes([solved, solved]) == 30, "nothing tells how they depend"
    rng = np.random.default_rng(0)
    independent = [dict(enumerate(rng.random(3000) < 0.4)) for _ in range(3)]
    assert effective_episodes(independent) == pytest.approx(9000, rel=0.05)


@pytest.mark.parametrize("difficulty", [0.0, 5.0])
def test_the_clustered_interval_covers_the_rate_where_the_plain_one_misses(difficulty):
    """Three policies on 100 states whose log-odds spread by `difficulty`; the true rate is one half."""
    rng, missed = np.random.default_rng(1), np.zeros(2)
    for _ in range(500):
        chances = 1 / (1 + np.exp(-difficulty * rng.standard_normal(100)))
        outcomes = [dict(enumerate((rng.random(100) < chances).tolist())) for _ in range(3)]
        successes = sum(sum(each.values()) for each in outcomes)
        for which, (low, high) in enumerate((wilson_interval(successes, 300), clustered_wilson_interval(outcomes))):
            missed[which] += not low <= 0.5 <= high
    plain, clustered = missed / 500
    assert clustered < 0.08
    assert (plain > 0.15) == (difficulty > 0)
