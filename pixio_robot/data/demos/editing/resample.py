"""Changing the control rate of episodes.

An `Edit` is the resulting DemoSpec and the function that changes an episode accordingly.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from pixio_robot.data.actions.merge_steps import plan_merge
from pixio_robot.data.demos.editing.rewrite import Edit
from pixio_robot.data.demos.overridden_steps import subsample_overridden_steps
from pixio_robot.data.demos.verify import TIMESTAMPS
from pixio_robot.errors import UserError
from pixio_robot.types import DemoSpec, Episode


def subsample(spec: DemoSpec, stride: int, actions: str) -> Edit:
    """Keep every `stride`-th frame, state and time stamp. Rewards are summed and actions merged the way that
    `actions` names (`merge_steps.MERGE_METHODS`); gripper columns take the last value instead of the sum or mean."""
    if stride < 1:
        raise UserError(f"stride={stride} must be at least 1.")
    merged = plan_merge(spec.action_names, stride, actions)

    def change(episode: Episode) -> Episode:
        starts = range(0, len(episode), stride)
        info = {**episode.info, **subsample_overridden_steps(episode.info, len(episode), stride)}
        if isinstance(times := info.get(TIMESTAMPS), list):
            info[TIMESTAMPS] = times[::stride]
        return dataclasses.replace(
            episode,
            images={camera: frames[::stride] for camera, frames in episode.images.items()},
            state=episode.state[::stride],
            actions=merged.merge(episode.actions).astype(np.float32),
            rewards=np.array([episode.rewards[i : i + stride].sum() for i in starts], np.float32),
            info=info,
        )

    slower = dataclasses.replace(spec, action_names=merged.names, control_hz=spec.control_hz / stride)
    return Edit(slower, change, merged.notes)
