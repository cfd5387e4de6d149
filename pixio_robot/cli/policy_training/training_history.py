"""What a policy was trained on, so that fine-tuning neither holds out those episodes nor tests on their seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pixio_robot.cli.policy_directory import policy_directory
from pixio_robot.data.goals import Goals

EPISODES, SEEDS = "learned", "train_seeds"
"""Keys of a saved policy's `extra`."""


@dataclass(frozen=True)
class TrainingHistory:
    """episodes: content hashes (`data.demos.episode_hash`) of the training episodes; None if the policy does not record
    them. seeds: all seeds in its stores, including those of held-out episodes. goals: what it is told of each task."""

    episodes: frozenset[str] | None = frozenset()
    seeds: Sequence[int] = field(default_factory=list)
    goals: Goals = field(default_factory=dict)

    def extra(self, episodes: Iterable[str], seeds: Iterable[int]) -> dict[str, Any]:
        """Entries for `extra` of a policy that started from this one and was trained on these episodes too."""
        return {EPISODES: sorted({*(self.episodes or ()), *episodes}), SEEDS: sorted({*self.seeds, *seeds})}


def read_training_history(policy: str | None) -> TrainingHistory:
    """What the saved policy was trained on; nothing for None."""
    if policy is None:
        return TrainingHistory()
    from policies.persistence import read_policy_config

    description = read_policy_config(policy_directory(policy))
    extra = description["extra"]
    episodes = frozenset(extra[EPISODES]) if EPISODES in extra else None
    return TrainingHistory(episodes, extra.get(SEEDS, []), description.get("goals", {}))
