"""Warnings about the demonstrations, printed before a policy is trained on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from pixio_robot.cli.policy_training.data_split import DemoSource
from pixio_robot.data.actions.pose_columns import find_rotations
from pixio_robot.data.actions.rotations import TWO_VALUED
from pixio_robot.data.actions.two_signs import find_two_signs
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.windows import Windows
from pixio_robot.errors import format_names
from policies.config import PolicyConfig
from policies.normalisation import CONSTANT_RANGE
from policies.relative_poses import RELATIVE

SAMPLED_WINDOWS = 2000
"""Number of evenly spaced windows sampled to estimate the share of padded actions."""
SAMPLED_EPISODES = 20
"""Number of evenly spaced episodes of each store whose actions are looked at."""
_RARE = 0.01
"""Rotations with another sign in fewer steps than this do not matter."""
_SEVERAL = 8
"""A number of actions to execute from each chunk, for a suggestion."""
HORIZON_MULTIPLE = 8
"""A suggested horizon is a multiple of this, so that it works with a U-Net of up to four levels."""


def data_warnings(sources: Sequence[DemoSource], policy: PolicyConfig) -> list[str]:
    """Warnings about the training episodes, one string each."""
    used = [source for source in sources if source.training]
    warnings = [_failure_warning(source.store, source.training) for source in used]
    warnings += [_held_out_duplicates_warning(source) for source in sources]
    warnings.append(_repeats_warning(used))
    warnings += [_standing_still_warning(source.store, source.training, policy) for source in used]
    warnings.append(_two_signs_warning(used, policy))
    lengths = [source.store.lengths[list(source.training)] for source in used]
    return [note for note in [*warnings, _padding_warning(np.concatenate(lengths), policy)] if note]


def untrained_tasks_warning(sources: Sequence[DemoSource]) -> str:
    """Note on tasks of which the random share holds out every episode; empty if there are none."""
    trained = {source.tasks[number] for source in sources for number in source.training}
    held_out = [source.tasks[number] for source in sources for number in source.held_out]
    untrained = [task for task in dict.fromkeys(held_out) if task not in trained]
    if not untrained:
        return ""
    return (
        f"every episode of {format_names([repr(task) for task in untrained])} is held out, so the policy can be asked "
        "for it but does not learn it. Take another seed or a smaller validation_share, or name the episodes to hold "
        "out with validation_where=."
    )


def _failure_warning(store: DemoStore, episodes: Iterable[int]) -> str:
    """Note on failed episodes; empty if all failed, as with formats that do not record success (`success=none`)."""
    episodes, successes = list(episodes), store.successes
    failed = [episode for episode in episodes if not successes[episode]]
    if not 0 < len(failed) < len(episodes):
        return ""
    share = store.lengths[failed].sum() / store.lengths[episodes].sum()
    return (
        f"{len(failed)} of the {len(episodes)} training episodes in {store.path} failed ({share:.0%} of the steps), "
        f"and the policy imitates them like the others. To leave them out: `pixio-robot data filter "
        f"{store.path} out=NEW where=success`, then data=NEW."
    )


def _held_out_duplicates_warning(source: DemoSource) -> str:
    if not source.duplicates:
        return ""
    return (
        f"{source.duplicates} episodes in {source.store.path} are not trained on, because the same ones are held out."
    )


def _repeats_warning(sources: Sequence[DemoSource]) -> str:
    """Note on episodes that are trained on more than once, in one store or in several; empty if there are none. The
    same motion for another task is another episode."""
    episodes = [(source.hashes[number], source.tasks[number]) for source in sources for number in source.training]
    repeats = len(episodes) - len(set(episodes))
    if not repeats:
        return ""
    note = (
        f"{repeats} of the {len(episodes)} training episodes repeat others (same state and actions), which therefore "
        "weigh more."
    )
    if len(sources) == 1:
        return note
    stores = " ".join(str(source.store.path) for source in sources)
    return f"{note} To leave them out: `pixio-robot data merge {stores} out=NEW twins=drop`, then data=NEW."


def _standing_still_warning(store: DemoStore, episodes: Sequence[int], policy: PolicyConfig) -> str:
    """Note on actions that are the state of their own step, where only the first action of each chunk is executed;
    empty otherwise. (With temporal ensembling, earlier predictions for the step move the robot.)"""
    if policy.executed > 1 or policy.ensemble_weight is not None:
        return ""
    sampled = _sample(episodes)
    state, actions = (np.concatenate([read(one) for one in sampled]) for read in (store.state, store.actions))
    moving = [column for column in actions.T if np.ptp(column) >= CONSTANT_RANGE]
    copies = sum(any(np.array_equal(column, seen) for seen in state.T) for column in moving)
    if not copies or copies < len(moving) / 2:
        return ""
    ways_out = f"set policy.execute={_SEVERAL} or so"
    if policy.horizon - policy.past_actions < _SEVERAL:
        ways_out += f", of a policy.horizon of {2 * _SEVERAL}"
    return (
        f"in {store.path}, {copies} of the {actions.shape[1]} actions are what the state is at the same step: the "
        "first action of each chunk is where the robot already is, and a policy that executes only that one "
        f"(policy.execute={policy.executed}) stands still: {ways_out}."
    )


def _two_signs_warning(used: Sequence[DemoSource], policy: PolicyConfig) -> str:
    """Note on rotations that are written in both of their ways, within a store or from one to another; empty
    otherwise."""
    rotations = find_rotations(used[0].store.spec.action_names, TWO_VALUED)
    if not rotations or policy.action_pose_repr == RELATIVE:  # small rotations, which the policy writes in one way
        return ""
    actions = np.concatenate([source.store.actions(one) for source in used for one in _sample(source.training)])
    found = [(block, share) for block, share in find_two_signs(rotations, actions) if share >= _RARE]
    if not found:
        return ""
    shares = ", ".join(f"{block.stem} (the rarer one in {share:.0%} of the steps)" for block, share in found)
    paths = [str(source.store.path) for source in used]
    each = paths[0] if len(paths) == 1 else "EACH"
    return (
        f"in {', '.join(paths)}, the same rotations have two signs: {shares}. A policy learns their mean, which is "
        f"another rotation. Six numbers have one value for each: `pixio-robot data actions {each} out=NEW "
        f"rotation=rot6d`, then data=NEW."
    )


def _sample(episodes: Sequence[int]) -> list[int]:
    return [episodes[index] for index in _evenly_spaced(len(episodes), SAMPLED_EPISODES)]


def _padding_warning(lengths: np.ndarray, policy: PolicyConfig) -> str:
    """Note on a chunk that is longer than most episodes; empty otherwise."""
    median = int(np.median(lengths))
    if policy.horizon <= median:
        return ""
    steps = (policy.observation_steps, policy.horizon)
    windows = Windows(lengths, *steps, past_actions=policy.past_actions)
    sampled = _evenly_spaced(len(windows), SAMPLED_WINDOWS)
    padding = windows.locate(sampled).ignored.mean()
    horizon = median // 2 // HORIZON_MULTIPLE * HORIZON_MULTIPLE or median // 2
    horizon = max(horizon, policy.past_actions + 1)
    suggestion = f"policy.horizon={horizon}"
    if policy.execute is not None and policy.execute > horizon - policy.past_actions:
        suggestion += f" policy.execute={(horizon - policy.past_actions + 1) // 2}"
    return (
        f"policy.horizon={policy.horizon} is longer than most episodes (median {median} steps): {padding:.0%} of the "
        f"actions in the windows are padding after the end. Consider {suggestion}."
    )


def _evenly_spaced(count: int, most: int) -> np.ndarray:
    """Up to `most` of the numbers below `count`, int64 (n,)."""
    return np.unique(np.linspace(0, count - 1, most).astype(np.int64))
