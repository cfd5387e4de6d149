"""How a policy is evaluated."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from pixio_robot.errors import UserError
from pixio_robot.evaluation.sequential import StopConfig
from pixio_robot.evaluation.statistics import Interval


@dataclasses.dataclass(kw_only=True)
class EvaluateConfig:
    """How a policy is evaluated. The defaults hold every result apart from the training seeds."""

    episodes: int = 100
    """Number of episodes; a 95 % interval on a rate near one half is +-10 points wide at 100."""
    first_seed: int = 100_000
    """Episode i starts from seed `first_seed + i`; demonstrations must not use these seeds."""
    seeds: list[int] = dataclasses.field(default_factory=list)
    """Exactly these episodes, in place of `episodes` and `first_seed`; each once."""
    num_slots: int = 8
    """Episodes in flight at once. On a GPU also the rows of each call of the policy, whose last digits may differ with
    their number; on a CPU it decides nothing about the outcome."""
    workers: int = 0
    """Simulator processes; 0 means one per core, and never more than `num_slots`."""
    interval: Interval = Interval.WILSON
    """Of the success rate; where `stop` is used it is a confidence sequence, whatever stands here."""
    videos: int = 6
    """Episodes to keep as mp4, and in one grid: the first successes and the first failures, half of each where there
    are enough of both."""
    video_camera: str | None = None
    """The one that is filmed; null: the environment's first."""
    step_timeout_s: float = 60.0
    """Seconds after which a silent worker counts as dead."""
    max_restarts: int = 3
    """How often one episode may lose its worker before the evaluation gives up."""
    stop: StopConfig = dataclasses.field(default_factory=StopConfig)
    """When to end before the last episode."""

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
    """Raise UserError when a seed is given twice: the second episode would repeat the first, not add to it."""
    seen: set[int] = set()
    repeated = sorted({seed for seed in seeds if seed in seen or seen.add(seed)})
    if repeated:
        raise UserError(f"Evaluation seeds must differ from one another; given more than once: {repeated[:5]}.")


def check_disjoint(
    train_seeds: Iterable[int],
    eval_seeds: Iterable[int],
    mend: str = "Set first_seed= beyond them, or name others by seeds=.",
) -> None:
    """Raise UserError when an evaluation seed is also a demonstration's: that would test memory. `mend`: what to do."""
    shared = sorted(set(train_seeds) & set(eval_seeds))
    if shared:
        shown = ", ".join(map(str, shared[:5])) + (", ..." if len(shared) > 5 else "")
        raise UserError(
            f"{len(shared)} evaluation seeds were already used to collect demonstrations ({shown}). " + mend
        )
