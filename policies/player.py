"""Runs a trained policy in your own loop: a frame in, an action out. `PolicyClient` does this for a served policy."""

from __future__ import annotations

import copy
import operator
import os
import warnings
from pathlib import Path

import numpy as np
import torch

from pixio_robot.errors import UserError
from pixio_robot.observation_checks import check_frame, check_task, copy_frame
from pixio_robot.state_range import StateRangeMonitor
from pixio_robot.types import Frame
from policies.acting import ActingConfig, apply_acting_config
from policies.base import ChunkPolicy
from policies.chunking import ChunkedActor, make_chunked_actor
from policies.persistence import load_policy


def actor_of(
    policy: ChunkPolicy | str | Path,
    acting: ActingConfig | None = None,
    *,
    task: str | None = None,
    slots: int = 1,
    device: torch.device | str | None = None,
) -> ChunkedActor:
    """An actor for `slots` episodes at a time, which acts as configured in training unless `acting` overrides it.

    The policy, or the one loaded from a path (`load_policy`), is put into evaluation mode. `task`: the task to perform,
    for a multi-task policy; others ignore it. `device`: None keeps the current one. Raises UserError for unsupported
    overrides, and for a task that was not in training.
    """
    acting = acting or ActingConfig()
    policy = copy.copy(_resolve_policy(policy).eval())  # shares the weights, but has its own acting settings
    apply_acting_config(policy, acting)
    device = policy.actions.offset.device if device is None else device
    if policy.config.conditioning.goal_dim:
        check_task(task, policy.goals, policy.spec.task)
    goal = policy.goals.get(task) if task is not None else None
    return make_chunked_actor(policy, slots, device, goal, acting.noise_seed)


def _resolve_policy(policy: ChunkPolicy | str | Path) -> ChunkPolicy:
    if isinstance(policy, str | os.PathLike):
        return load_policy(policy)
    if not isinstance(policy, ChunkPolicy):
        raise UserError(f"A player needs a policy or a policy directory, not {type(policy).__name__}.")
    return policy


class PolicyPlayer:
    """Runs one policy in one episode at a time.

    The policy predicts a chunk of actions and executes some of them before it predicts again, so most steps cost
    nothing. Warns once about a state far outside the range of the demonstrations.
    """

    def __init__(
        self,
        policy: ChunkPolicy | str | Path,
        acting: ActingConfig | None = None,
        *,
        task: str | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        """Arguments and errors are those of `actor_of`."""
        policy = _resolve_policy(policy)
        self.spec = policy.spec
        self.cameras = list(policy.cameras)
        self._actor = actor_of(policy, acting, task=task, device=device)
        self._watch = StateRangeMonitor.of(policy.spec.state_names, policy.state_range)
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Start a new episode; its noise is determined by `seed`, a whole number."""
        self._actor.reset(0, operator.index(seed))

    @property
    def needs_images(self) -> bool:
        """Whether the policy will use the images of the next frame; if not, they may be omitted."""
        return self._actor.needs_images(0)

    def act(self, frame: Frame) -> np.ndarray:
        """The action (a,) for the newest frame, in physical units. The frame's arrays may be reused afterwards.

        Raises UserError if the frame does not match the policy; the frame is then discarded, and you may pass another.
        """
        state = check_frame(self.spec, self.cameras, frame, images_needed=self._actor.uses_next_frame(0))
        if self._watch is not None and (words := self._watch.check(state)):
            warnings.warn(words, stacklevel=2)
        kept = copy_frame(frame, self.cameras) if self._actor.retains_next_frame(0) else frame
        return self._actor.act({0: kept})[0]
