"""Evaluation settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from pixio_robot.errors import UserError
from pixio_robot.evaluation.sequential import StopConfig
from pixio_robot.evaluation.statistics import Interval


@dataclasses.dataclass(kw_only=True)
class EvaluateConfig:
    """How a policy is evaluated. The default seeds lie far above the usual seeds of demonstrations."""

    episodes: int = 100
    """Number of episodes. With 100, the 95 % interval around a success rate near 50 % is about +-10 points."""
    first_seed: int = 100_000
    """Episode i uses seed `first_seed + i`. These seeds must not have been used to collect demonstrations."""
    seeds: list[int] = dataclasses.field(default_factory=list)
    """Explicit list of distinct episode seeds; overrides `episodes` and `first_seed`."""
    num_slots: int = 8
    """Episodes run in parallel, which is also the policy's batch size. On a GPU the batch size can change the last
    digits of the actions; on a CPU it does not affect the results."""
    workers: int = 0
    """Simulator processes, at most `num_slots`; 0: one per CPU core."""
    interval: Interval = Interval.WILSON
    """Confidence interval for the success rate. Ignored with `stop`, which uses a confidence sequence."""
    videos: int = 6
    """Episodes to save as mp4, and together in one grid video: the first successes and the first failures, half of
    each if there are enough of both."""
    video_camera: str | None = None
    """Camera to record videos from; null: the environment's first camera."""
    step_timeout_s: float = 60.0
    """Seconds without a response after which a worker is considered dead."""
    max_restarts: int = 3
    """How many times an episode may be restarted after its worker died before the evaluation fails."""
    stop: StopConfig = dataclasses.field(default_factory=StopConfig)
    """Early stopping."""

    def __post_init__(self) -> None:
        for name, least in (("episodes", 1), ("first_seed", 0), ("num_slots", 1), ("workers", 0), ("videos", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name} is {getattr(self, name)}, it must be at least {least}.")
        if self.step_timeout_s <= 0:
            raise UserError(f"step_timeout_s is {self.step_timeout_s}, it must be above 0 seconds.")
        if self.max_restarts < 0:
            raise UserError(f"max_restarts is {self.max_restarts}, it must be at least 0.")
        if self.seeds and min(self.seeds) < 0:
            raise UserError(f"seeds holds {min(self.seeds)}; seeds are at least 0.")
        check_distinct(self.seeds)

    def seed_list(self) -> list[int]:
        """The seed of every episode, in order."""
        return list(self.seeds) or list(range(self.first_seed, self.first_seed + self.episodes))


def check_distinct(seeds: Iterable[int]) -> None:
    """Raise UserError for duplicate seeds: the second episode would only repeat the first."""
    seen: set[int] = set()
    repeated = sorted({seed for seed in seeds if seed in seen or seen.add(seed)})
    if repeated:
        raise UserError(f"Evaluation seeds must be distinct; given more than once: {repeated[:5]}.")


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
