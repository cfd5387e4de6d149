"""Confidence intervals for success rates, and paired comparison of two policies on the same seeds."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Mapping, Sequence
from statistics import NormalDist

from pixio_robot.choice import Choice
from pixio_robot.errors import UserError


class Interval(Choice):
    """Type of 95 % confidence interval for a success rate."""

    WILSON = "Wilson"
    """95 % coverage on average over all rates: shorter."""
    CLOPPER_PEARSON = "Clopper-Pearson"
    """At least 95 % coverage at every rate: conservative."""

    def __call__(self, successes: int, n: int) -> tuple[float, float]:
        of = wilson_interval if self is Interval.WILSON else clopper_pearson_interval
        return of(successes, n)


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval for a rate (Newcombe 1998, Statist. Med. 17:857, method 3).

    Unlike the normal approximation it stays within [0, 1] and is not empty at 0 or n successes. Raises ValueError
    unless 0 <= successes <= n and n >= 1.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} is not a proportion")
    return _wilson(successes / n, n, confidence)


def _wilson(rate: float, n: float, confidence: float) -> tuple[float, float]:
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    centre = rate + z * z / (2 * n)
    spread = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # The bounds are exact at the edges; do not let rounding push them outside [0, 1].
    low = 0.0 if rate == 0 else (centre - spread) / scale
    high = 1.0 if rate == 1 else (centre + spread) / scale
    return low, high


def effective_episodes(outcomes: Sequence[Mapping[int, bool]]) -> float:
    """How many independent episodes several evaluations, {seed: success} each, are worth.

    Policies that play the same seeds start from the same states, some of which are hard for all of them, so that their
    episodes say less than as many from different states. The number of episodes is divided by the design effect: the
    variance of the rate with the seeds as clusters, relative to that of independent episodes (Kish 1965, Survey
    Sampling, section 8.2). It lies between the number of different seeds and that of all episodes; where all episodes
    end alike, which tells nothing about how they depend, it is the former.
    """
    clusters: dict[int, list[bool]] = {}
    for evaluation in outcomes:
        for seed, success in evaluation.items():
            clusters.setdefault(seed, []).append(success)
    seeds, episodes = len(clusters), sum(map(len, clusters.values()))
    rate = sum(map(sum, clusters.values())) / episodes
    if seeds == episodes or seeds == 1 or rate in (0, 1):
        return seeds
    squares = sum((sum(cluster) - len(cluster) * rate) ** 2 for cluster in clusters.values())
    # squares / episodes is the variance of one episode if all are independent, rate (1 - rate).
    design_effect = seeds / (seeds - 1) * squares / episodes / (rate * (1 - rate))
    return min(episodes, max(seeds, episodes / design_effect)) if design_effect else episodes


def clustered_wilson_interval(outcomes: Sequence[Mapping[int, bool]], confidence: float = 0.95) -> tuple[float, float]:
    """Wilson interval for the pooled rate of several evaluations, {seed: success} each, some of whose seeds are the
    same: with the effective number of episodes (Dean & Pagano 2015, J. Surv. Stat. Methodol. 3:484)."""
    episodes = sum(map(len, outcomes))
    if not episodes:
        raise ValueError("there are no episodes")
    successes = sum(sum(evaluation.values()) for evaluation in outcomes)
    return _wilson(successes / episodes, effective_episodes(outcomes), confidence)


def clopper_pearson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact interval for a rate (Clopper & Pearson 1934, Biometrika 26:404), from quantiles of the beta distribution.

    It contains the rates that neither one-sided test at level (1 - confidence) / 2 rejects. Raises ValueError as
    `wilson_interval` does.
    """
    from scipy import stats

    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} is not a proportion")
    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else float(stats.beta.ppf(tail, successes, n - successes + 1))
    high = 1.0 if successes == n else float(stats.beta.ppf(1 - tail, successes + 1, n - successes))
    return low, high


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided exact p-value of McNemar's test: are seeds solved by only one policy split evenly between the two?"""
    # NumPy's integers, as counted from arrays, overflow in 2**n.
    first, second = operator.index(only_first), operator.index(only_second)
    n = first + second
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(min(first, second) + 1)) / 2**n)


def paired_difference_interval(
    both: int, only_first: int, only_second: int, neither: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Interval for rate(first) - rate(second) on shared seeds (Newcombe 1998, Statist. Med. 17:2635, method 10).

    Combines the Wilson intervals of the two rates, accounting for their correlation.
    """
    n = both + only_first + only_second + neither
    first, second = both + only_first, both + only_second
    low_1, high_1 = wilson_interval(first, n, confidence)
    low_2, high_2 = wilson_interval(second, n, confidence)
    rate_1, rate_2 = first / n, second / n
    margins = first * (n - first) * second * (n - second)
    product = both * neither - only_first * only_second
    if product > 0:
        product = max(product - n / 2, 0.0)  # continuity correction for positive correlation only
    correlation = product / math.sqrt(margins) if margins else 0.0

    def spread(first_side: float, second_side: float) -> float:
        return math.sqrt(max(0.0, first_side**2 - 2 * correlation * first_side * second_side + second_side**2))

    difference = rate_1 - rate_2
    low = difference - spread(rate_1 - low_1, high_2 - rate_2)
    high = difference + spread(high_1 - rate_1, rate_2 - low_2)
    return low, high


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairedComparison:
    """Two policies on the same seeds: how many seeds both, one or neither solved, and the resulting statistics."""

    both: int
    only_first: int
    only_second: int
    neither: int
    difference: float
    """rate(first) - rate(second), with its 95 % interval."""
    low: float
    high: float
    p_value: float
    """McNemar's exact test, two-sided."""

    @property
    def n(self) -> int:
        return self.both + self.only_first + self.only_second + self.neither


def compare_paired(first: Mapping[int, bool], second: Mapping[int, bool]) -> PairedComparison:
    """Compare two evaluations given as {seed: success} on the seeds they share.

    Raises UserError if they share none.
    """
    shared = first.keys() & second.keys()
    if not shared:
        raise UserError("The two evaluations share no seed, so they cannot be compared as pairs.")
    both = sum(bool(first[seed] and second[seed]) for seed in shared)
    only_first = sum(bool(first[seed] and not second[seed]) for seed in shared)
    only_second = sum(bool(second[seed] and not first[seed]) for seed in shared)
    neither = len(shared) - both - only_first - only_second
    low, high = paired_difference_interval(both, only_first, only_second, neither)
    return PairedComparison(
        both=both,
        only_first=only_first,
        only_second=only_second,
        neither=neither,
        difference=(only_first - only_second) / len(shared),
        low=low,
        high=high,
        p_value=mcnemar_exact(only_first, only_second),
    )
