"""Statistics of relative poses (policies/relative_poses.py), which depend on the windows that a policy is trained on.

Shapes: b windows, t frames, n steps of the chunk, s state, a action.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.loading import DemoWindows
from pixio_robot.data.stats import Statistics, compute_range
from pixio_robot.types import DemoSpec
from policies.config import PolicyConfig
from policies.relative_poses import RELATIVE, RelativePoses

StoreEpisodes = Sequence[tuple[DemoStore, Sequence[int]]]
"""Stores, and the training episodes of each."""
_WINDOWS_PER_BATCH = 4096


def with_relative_poses(
    statistics: Statistics, config: PolicyConfig, spec: DemoSpec, chosen: StoreEpisodes
) -> Statistics:
    """`statistics`, together with those of the relative poses that a policy with this config is trained on, if any.

    They are over all windows of the chosen episodes, each counted once, without the actions that the loss ignores.
    Raises UserError for demonstrations without the columns that this takes.
    """
    steps = sum(int(store.lengths[list(episodes)].sum()) for store, episodes in chosen)
    if config.action_pose_repr == RELATIVE:
        actions = RelativePoses.of_actions(spec, statistics.actions)
        rows = (
            actions.to_frame(actions_bna, state_bts[:, -1])[~ignored_bn].numpy()
            for state_bts, actions_bna, ignored_bn in _windows(config, chosen)
        )
        statistics = dataclasses.replace(statistics, relative_actions=compute_range(rows, steps * config.horizon))
    if config.conditioning.obs_pose_repr == RELATIVE:
        state = RelativePoses.of_state(spec)
        rows = (
            state.to_frame(state_bts, state_bts[:, -1]).flatten(0, 1).numpy()
            for state_bts, _, _ in _windows(config, chosen)
        )
        most = steps * config.observation_steps
        statistics = dataclasses.replace(statistics, relative_state=compute_range(rows, most))
    return statistics


def _windows(config: PolicyConfig, chosen: StoreEpisodes) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The states (b, t, s), actions (b, n, a) and ignored actions (b, n) of all windows, some thousands at a time."""
    for store, episodes in chosen:
        if not episodes:
            continue
        windows = DemoWindows(
            store,
            horizon=config.horizon,
            observation_steps=config.observation_steps,
            past_actions=config.past_actions,
            max_padding=config.max_padding,
            cameras=[],
            episodes=episodes,
        )
        for start in range(0, len(windows), _WINDOWS_PER_BATCH):
            batch = windows.gather(np.arange(start, min(start + _WINDOWS_PER_BATCH, len(windows))))
            yield batch.observation.state, batch.actions, batch.ignored
