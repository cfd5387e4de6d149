"""Evaluation settings."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable

from pixio_robot.errors import UserError
from pixio_robot.evaluation.sequential import StopConfig
from pixio_robot.evaluation.statistics import Interval
from pixio_robot.fields import check_fields, number


@dataclasses.dataclass(kw_only=True)
class EvaluateConfig:
    """How a policy is evaluated. The default seeds lie far above the usual seeds of demonstrations."""

    episodes: int = number(100, at_least=1)
    """Number of episodes. With 100, the 95 % interval around a success rate near 50 % is about +-10 points. A finished
    evaluation is continued with a larger number."""
    first_seed: int = number(100_000, at_least=0)
    """Episode i uses seed `first_seed + i`. These seeds must not have been used to collect demonstrations."""
    seeds: list[int] = number([], at_least=0)
    """Explicit list of distinct episode seeds; overrides `episodes` and `first_seed`."""
    num_slots: int = number(8, at_least=1)
    """Episodes run in parallel, which is also the policy's batch size. On a GPU the batch size can change the last
    digits of the actions; on a CPU it does not affect the results."""
    workers: int = number(0, at_least=0)
    """Simulator processes, at most `num_slots`; 0: one per CPU core."""
    interval: Interval = Interval.WILSON
    """Confidence interval for the success rate. Ignored with `stop`, which uses a confidence sequence."""
    videos: int = number(6, at_least=0)
    """Episodes to save as mp4, and together in one grid video: the first successes and the first failures, half of
    each if there are enough of both."""
    video_camera: str | None = None
    """Camera to record videos from; null: the environment's first camera."""
    step_timeout_s: float = number(60.0, above=0)
    """Seconds without a response after which a worker is considered dead."""
    max_restarts: int = number(3, at_least=0)
    """How many times an episode may be restarted after its worker died before the evaluation fails."""
    stop: StopConfig = dataclasses.field(default_factory=StopConfig)
    """Early stopping."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_distinct(self.seeds)

    def seed_list(self) -> list[int]:
        """The seed of every episode, in order."""
        return list(self.seeds) or list(range(self.first_seed, self.first_seed + self.episodes))


def check_distinct(seeds: Iterable[int]) -> None:
    """Raise UserError for duplicate seeds: the second episode would only repeat the first."""
    repeated = sorted(seed for seed, count in collections.Counter(seeds).items() if count > 1)
    if repeated:
        raise UserError(
            f"Evaluation seeds must be distinct; given more than once: {repeated[:5]}. To play the same initial states "
            "again with other sampling noise, evaluate into another out= with noise_seed=1."
        )


def check_disjoint(
    train_seeds: Iterable[int],
    eval_seeds: Iterable[int],
    mend: str = "Set first_seed= to a value above them, or choose other seeds with seeds=.",
) -> None:
    """Raise UserError if an evaluation seed was also used for demonstrations: that would test memorisation.

    `mend`: how to fix it, appended to the message.
    """
    shared = sorted(set(train_seeds) & set(eval_seeds))
    if shared:
        shown = ", ".join(map(str, shared[:5])) + (", ..." if len(shared) > 5 else "")
        raise UserError(
            f"{len(shared)} evaluation seeds were already used to collect demonstrations ({shown}). " + mend
        )
