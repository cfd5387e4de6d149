"""Stop an evaluation as soon as the answer is clear, without inflating its error rate.

Checking a 95 % Wilson interval after every episode and stopping when it looks good is wrong far more often than one
time in twenty. A confidence sequence is valid after every episode simultaneously, so it can be checked at any time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pixio_robot.choice import Choice
from pixio_robot.errors import UserError
from pixio_robot.fields import check_fields, number
from pixio_robot.types import EpisodeResult

LEAST_EPISODES = 10
"""No rule stops before this many episodes: a result from fewer would not be convincing."""


class StopRule(Choice):
    """never: do not stop early. width: stop once the success rate is known to within +-`half_width`. rate: once it is
    clearly above or below `rate`. versus: once it is clearly better or worse than `versus` on the same seeds."""

    NEVER = "never"
    WIDTH = "width"
    RATE = "rate"
    VERSUS = "versus"


@dataclasses.dataclass(kw_only=True)
class StopConfig:
    """When an evaluation may stop early."""

    rule: StopRule = StopRule.NEVER
    half_width: float = number(0.1, above=0, below=1)
    """Target half width of the interval as a fraction, for rule `width`."""
    rate: float = number(0.5, above=0, below=1)
    """Success rate to compare with as a fraction, for rule `rate`."""
    versus: str | None = None
    """Directory of a finished evaluation of the same environment with the same seeds, for rule `versus`."""
    confidence: float = number(0.95, above=0, below=1)
    """Confidence level of the confidence sequence that the rule uses."""

    def __post_init__(self) -> None:
        check_fields(self, "stop.")
        if self.rule is StopRule.VERSUS and self.versus is None:
            raise UserError("stop.rule=versus needs stop.versus, the directory of the evaluation to compare with.")


def confidence_sequence(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Bounds on a rate that hold for all numbers of episodes simultaneously, with probability `confidence`.

    The set of rates whose prior-to-posterior ratio, with a uniform prior, is below 1 / (1 - confidence). At the true
    rate this ratio is a martingale that starts at 1, so by Ville's inequality it rarely gets that large (Robbins 1970,
    Ann. Math. Stat. 41:1397; Waudby-Smith & Ramdas 2020, arXiv 2006.04347, section 2).
    """
    from scipy import optimize, stats

    if n < 0 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} is not a proportion")
    posterior: Any = stats.beta(1 + successes, 1 + n - successes)
    alpha = 1 - confidence

    def excess(rate: float) -> float:
        return float(posterior.pdf(rate)) - alpha

    def bound(edge: float) -> float:
        return edge if excess(edge) >= 0 else optimize.root_scalar(excess, bracket=sorted((edge, peak))).root

    peak = successes / n if n else 0.5
    return bound(0.0), bound(1.0)


def make_stop_check(config: StopConfig, reference: Mapping[int, bool]) -> Callable[[Sequence[EpisodeResult]], str]:
    """A function that takes the episodes so far, in seed order, and returns the reason to stop, or an empty string.

    `reference` is {seed: success} of the evaluation in `config.versus`. Seeds that both policies solve or both fail
    say nothing about which is better; if they are equally good, each wins half of the remaining seeds on average.
    """

    def bounds(successes: int, n: int) -> tuple[float, float]:
        return confidence_sequence(successes, n, config.confidence)

    def reason(results: Sequence[EpisodeResult]) -> str:
        n = len(results)
        if config.rule is StopRule.NEVER or n < LEAST_EPISODES:
            return ""
        low, high = bounds(sum(result.success for result in results), n)
        if config.rule is StopRule.WIDTH and high - low <= 2 * config.half_width:
            return f"the rate is known to within {config.half_width:.0%}"
        if config.rule is StopRule.RATE and not low <= config.rate <= high:
            return f"the rate is {'above' if low > config.rate else 'below'} {config.rate:.0%}"
        if config.rule is StopRule.VERSUS:
            decided = [result.success for result in results if result.success != reference[result.seed]]
            low, high = bounds(sum(decided), len(decided))
            if not low <= 0.5 <= high:
                return f"the policy is {'better' if low > 0.5 else 'worse'} than {config.versus}"
        return ""

    return reason


class StopMonitor:
    """Decide when to stop: at the first episode, in the order of `seeds`, after which the rule says so.

    Successful episodes end sooner than failed ones. Counting them in order of completion would be biased towards
    success, so an episode counts only once all earlier ones have ended; the outcome depends on the seeds alone.
    """

    def __init__(self, seeds: Sequence[int], config: StopConfig, reference: Mapping[int, bool]) -> None:
        """Raises UserError if the rule is `versus` and `reference` lacks a seed."""
        missing = [seed for seed in seeds if seed not in reference] if config.rule is StopRule.VERSUS else []
        if missing:
            raise UserError(
                f"stop.versus={config.versus} has no episode with seed {missing[0]}; both need the same seeds."
            )
        self._seeds, self._reason = seeds, make_stop_check(config, reference)
        self._ended: dict[int, EpisodeResult] = {}
        self._in_order: list[EpisodeResult] = []
        self.stop_reason = ""
        """Reason for stopping early; empty while the evaluation goes on."""

    @property
    def ended(self) -> list[int]:
        """Seeds of all episodes that have ended."""
        return list(self._ended)

    @property
    def counted(self) -> list[int]:
        """Seeds of the episodes that count towards the result."""
        return [result.seed for result in self._in_order]

    def add(self, result: EpisodeResult) -> None:
        self._ended[result.seed] = result
        while not self.stop_reason and len(self._in_order) < len(self._seeds):
            following = self._ended.get(self._seeds[len(self._in_order)])
            if following is None:
                return
            self._in_order.append(following)
            self.stop_reason = self._reason(self._in_order)
