"""A trained policy in your own loop: a frame in, an action out. `PolicyClient` is the same for one that is served."""

from __future__ import annotations

import copy
import os
import warnings
from pathlib import Path

import numpy as np
import torch

from pixio_robot.errors import UserError
from pixio_robot.observed import check_frame, check_task
from pixio_robot.state_watch import StateWatch
from pixio_robot.types import Frame
from policies.acting import ActingConfig, act_as
from policies.base import ChunkPolicy
from policies.chunking import ChunkedActor, chunked_actor
from policies.persistence import load_policy


def actor_of(
    policy: ChunkPolicy | str | Path,
    acting: ActingConfig | None = None,
    *,
    task: str | None = None,
    slots: int = 1,
    device: torch.device | str | None = None,
) -> ChunkedActor:
    """Who plays `slots` episodes at a time, as the policy was trained to act, or as `acting` says.

    The policy, or the one that lies at a path (`load_policy`), is put into evaluation mode. `task`: what is wanted, for
    one of several tasks; others ignore it. `device`: None leaves it where it is. Raises UserError where the policy
    cannot act so, and for a task that it was not told of in training.
    """
    acting = acting or ActingConfig()
    policy = copy.copy(_policy(policy).eval())  # the same weights; how it acts is this actor's alone
    act_as(policy, acting)
    device = policy.actions.offset.device if device is None else device
    if policy.config.conditioning.goal_dim:
        if not policy.goals:
            raise UserError("The policy is told what is wanted, and knows no task: set policy.goals = {task: numbers}.")
        check_task(task, policy.goals, policy.spec.task)
    goal = policy.goals.get(task) if task is not None else None
    return chunked_actor(policy, slots, device, goal, acting.noise_seed)


def _policy(policy: ChunkPolicy | str | Path) -> ChunkPolicy:
    if isinstance(policy, str | os.PathLike):
        return load_policy(policy)
    if not isinstance(policy, ChunkPolicy):
        raise UserError(f"A player takes a policy, or the directory of one, not {type(policy).__name__}.")
    return policy


class PolicyPlayer:
    """One policy in one episode at a time.

    The policy is asked once for a chunk of actions and carries out some of them before it looks again, so the action of
    most steps costs nothing. A state far from all that it learned from is warned of once.
    """

    def __init__(
        self,
        policy: ChunkPolicy | str | Path,
        acting: ActingConfig | None = None,
        *,
        task: str | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        """Arguments and errors as those of `actor_of`."""
        policy = _policy(policy)
        self.spec = policy.spec
        self.cameras = list(policy.cameras)
        self._actor = actor_of(policy, acting, task=task, device=device)
        self._watch = StateWatch.of(policy.spec.state_names, policy.state_range)
        self.reset(0)

    def reset(self, seed: int) -> None:
        """A new episode begins; its noise follows from `seed`."""
        self._actor.reset(0, seed)

    @property
    def needs_images(self) -> bool:
        """Whether the policy will look at the next frame; if not, it may come without images."""
        return self._actor.needs_images(0)

    def act(self, frame: Frame) -> np.ndarray:
        """The action (a,) for the newest frame, in physical units.

        Raises UserError when the frame does not fit the policy; it is forgotten then, and another may take its place.
        """
        state = check_frame(self.spec, self.cameras, frame, looked_at=self._actor.looks_next(0))
        if self._watch is not None and (words := self._watch.words(state)):
            warnings.warn(words, stacklevel=2)
        return self._actor.act({0: frame})[0]
