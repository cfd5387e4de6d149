"""Notes about the demonstrations for the user before a policy is trained on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from pixio_robot.cli.held_out import Source
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.windows import Windows
from policies.config import PolicyConfig

WINDOWS_LOOKED_AT = 2000
"""Number of evenly spaced windows sampled to estimate the share of padded actions."""
WHOLE = 8
"""A suggested horizon is a multiple of this, so that it works with a U-Net of up to four levels."""


def notes(sources: Sequence[Source], policy: PolicyConfig) -> list[str]:
    """Warnings about the training episodes, one string each."""
    used = [source for source in sources if source.training]
    found = [_of_failures(source.store, source.training) for source in used]
    found += [_of_twins(source) for source in sources]
    lengths = [source.store.lengths[list(source.training)] for source in used]
    return [note for note in [*found, _of_padding(np.concatenate(lengths), policy)] if note]


def _of_failures(store: DemoStore, episodes: Iterable[int]) -> str:
    """Note on failed episodes; empty if all failed, as with formats that do not record success (`success=none`)."""
    episodes = list(episodes)
    failed = [episode for episode in episodes if not store.successes[episode]]
    if not 0 < len(failed) < len(episodes):
        return ""
    share = store.lengths[failed].sum() / store.lengths[episodes].sum()
    return (
        f"{len(failed)} of the {len(episodes)} training episodes in {store.path} failed ({share:.0%} of the steps), "
        f"and the policy imitates them like the others. To leave them out: `pixio-robot data filter "
        f"{store.path} out=NEW where=success`, then data=NEW."
    )


def _of_twins(source: Source) -> str:
    if not source.twins:
        return ""
    return f"{source.twins} episodes in {source.store.path} are not trained on, because the same ones are held out."


def _of_padding(lengths: np.ndarray, policy: PolicyConfig) -> str:
    """Note on a chunk that is longer than most episodes; empty otherwise."""
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
        f"policy.horizon={policy.horizon} is longer than most episodes (median {median} steps): {padding:.0%} of the "
        f"actions in the windows are padding after the end. Consider {words}."
    )
