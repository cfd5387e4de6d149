"""What a policy has learned from, so that one that begins from it neither holds out nor is tested on the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pixio_robot.cli.policy_directory import policy_directory

EPISODES, SEEDS = "learned", "train_seeds"
"""Keys of a saved policy's `extra`."""


@dataclass(frozen=True)
class Learned:
    """episodes: marks (`data.demo_marks`) of those that were trained on; None where the policy does not say. seeds: of
    all that its stores held, those that were held out too."""

    episodes: frozenset[str] | None = frozenset()
    seeds: Sequence[int] = field(default_factory=list)

    def extra(self, episodes: Iterable[str], seeds: Iterable[int]) -> dict[str, Any]:
        """For `extra` of a policy that began from this and learned these too."""
        return {EPISODES: sorted({*(self.episodes or ()), *episodes}), SEEDS: sorted({*self.seeds, *seeds})}


def learned_by(policy: str | None) -> Learned:
    """By the saved policy; nothing for None."""
    if policy is None:
        return Learned()
    from policies.persistence import read_policy_config

    extra = read_policy_config(policy_directory(policy))["extra"]
    return Learned(frozenset(extra[EPISODES]) if EPISODES in extra else None, extra.get(SEEDS, []))
