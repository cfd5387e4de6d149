"""What a policy has learned from, so that one that begins from it neither holds out nor is tested on the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pixio_robot.cli.policy_directory import policy_directory
from pixio_robot.data.demos import DemoStore

EPISODES, SEEDS = "learned", "train_seeds"
"""Keys of a saved policy's `extra`."""


@dataclass(frozen=True)
class Learned:
    """episodes: marks of those that were trained on; None where the policy does not say. seeds: of all that its stores
    held, those that were held out too."""

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


def mark(store: DemoStore, episode: int) -> str:
    """The same for the same states and actions, whichever store they lie in and by whichever number."""
    digest = hashlib.blake2b(digest_size=8)
    for values in (store.state(episode), store.actions(episode)):
        digest.update(values.tobytes())
    return digest.hexdigest()
