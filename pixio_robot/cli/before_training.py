"""What a user should know of the demonstrations before a policy is trained on them, as sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from pixio_robot.data.demos import DemoStore
from pixio_robot.data.windows import Windows
from policies.config import PolicyConfig

WINDOWS_LOOKED_AT = 2000
"""Evenly over all, to tell the share of their actions that are padding."""
WHOLE = 8
"""A horizon to try is a multiple of this, which a U-Net of up to four levels takes."""


def notes(stores: Sequence[DemoStore], training: Sequence[Sequence[int]], policy: PolicyConfig) -> list[str]:
    """`training`: the episodes of each store that are trained on."""
    found = [_of_failures(store, episodes) for store, episodes in zip(stores, training, strict=True) if episodes]
    lengths = [store.lengths[list(episodes)] for store, episodes in zip(stores, training, strict=True) if episodes]
    return [note for note in [*found, _of_padding(np.concatenate(lengths), policy)] if note]


def _of_failures(store: DemoStore, episodes: Iterable[int]) -> str:
    """Nothing where none of them succeeded, as where a format did not say which did (`success=none`)."""
    episodes = list(episodes)
    failed = [episode for episode in episodes if not store.successes[episode]]
    if not 0 < len(failed) < len(episodes):
        return ""
    share = store.lengths[failed].sum() / store.lengths[episodes].sum()
    return (
        f"{len(failed)} of the {len(episodes)} episodes of {store.path} that are trained on did not succeed, "
        f"{share:.0%} of their steps, and are learned like the others. To leave them out: `pixio-robot data filter "
        f"{store.path} out=NEW where=success`, then data=NEW."
    )


def _of_padding(lengths: np.ndarray, policy: PolicyConfig) -> str:
    """Of a chunk that is longer than most episodes."""
    median = int(np.median(lengths))
    if policy.horizon <= median:
        return ""
    steps = (policy.observation_steps, policy.horizon)
    windows = Windows(lengths, *steps, past_actions=policy.past_actions, max_padding=policy.max_padding)
    some = np.unique(np.linspace(0, len(windows) - 1, WINDOWS_LOOKED_AT).astype(np.int64))
    padding = windows.locate(some).is_pad.mean()
    horizon = median // 2 // WHOLE * WHOLE or median // 2
    horizon = max(horizon, policy.past_actions + 1)
    words = f"policy.horizon={horizon}"
    if policy.execute is not None and policy.execute > horizon - policy.past_actions:
        words += f" policy.execute={(horizon - policy.past_actions + 1) // 2}"
    return (
        f"policy.horizon={policy.horizon} actions are more than most episodes have (median {median} steps): "
        f"{padding:.0%} of the actions in the windows are padding after the end. {words} would do."
    )
