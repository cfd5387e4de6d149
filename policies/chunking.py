"""Runs a policy in many environments at once: batched calls, in which each row has the noise of its own episode."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from pixio_robot.errors import UserError
from pixio_robot.receding_horizon import RecedingHorizon, check_execute
from pixio_robot.types import Frame, Observation, Policy

if TYPE_CHECKING:
    from policies.base import ChunkPolicy


def call_seed(episode_seed: int, step: int, noise_seed: int = 0) -> int:
    """The seed of the policy call at that step of that episode, in [0, 2^63); depends on `noise_seed` too."""
    again = f"/{noise_seed}" if noise_seed else ""
    digest = hashlib.blake2b(f"{episode_seed}/{step}{again}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def rows_of_calls(device: torch.device, slots: int) -> int:
    """The number of rows to compute together.

    On a CPU the last digits of a row depend on its position in the batch, and therefore on which slots are active (for
    example after an interruption). So each row is computed alone, which takes a tenth to a quarter more time.
    """
    return slots if device.type == "cuda" else 1


class ChunkedActor:
    """Runs one policy in many slots at once; implements `types.Actor`.

    Every call of the policy has exactly `batch_size` rows (if fewer are needed, the last one is repeated), so a slot's
    actions do not depend on which other slots are active: exactly with one row; with more, up to the numerical effect
    of the row's position in the batch.
    """

    def __init__(
        self,
        policy: Policy,
        execute: int,
        device: torch.device | str = "cpu",
        batch_size: int = 8,
        ensemble_weight: float | None = None,
        goal: Sequence[float] | None = None,
        noise_seed: int = 0,
    ):
        """`execute`, `ensemble_weight`: as in `RecedingHorizon`. `goal` (g,): the goal in every slot, for a
        goal-conditioned policy. `noise_seed`: a different value replays the same episodes with different noise."""
        check_execute(execute, policy.horizon)
        if batch_size < 1:
            raise UserError(f"batch_size = {batch_size} must be at least 1.")
        self._policy = policy
        self._execute = execute
        self._device = torch.device(device)
        self._batch_size = batch_size
        self._ensemble_weight = ensemble_weight
        self._goal = None if goal is None else torch.tensor(goal, dtype=torch.float32)
        self._noise_seed = noise_seed
        self._slots: dict[int, tuple[int, RecedingHorizon]] = {}
        """Slot -> (seed of its episode, the episode)."""
        if isinstance(policy, nn.Module):
            policy.eval().to(self._device)

    def reset(self, slot: int, seed: int) -> None:
        episode = RecedingHorizon(self._policy.observation_steps, self._execute, self._ensemble_weight)
        self._slots[slot] = seed, episode

    def looks_next(self, slot: int) -> bool:
        """Whether the policy will use the slot's next frame, if only its state."""
        return self._slots[slot][1].looks_next

    def keeps_next(self, slot: int) -> bool:
        """Whether the slot's next frame may also be used by a later policy call; `act` does not copy it."""
        return self._slots[slot][1].keeps_next

    def needs_images(self, slot: int) -> bool:
        return bool(self._policy.cameras) and self.looks_next(slot)

    def act(self, frames: Mapping[int, Frame]) -> dict[int, np.ndarray]:
        running = {slot: self._slots[slot] for slot in frames}
        for slot, (_, episode) in running.items():
            episode.see(frames[slot])
        hungry = [(seed, episode) for seed, episode in running.values() if episode.hungry]
        for start in range(0, len(hungry), self._batch_size):
            self._feed(hungry[start : start + self._batch_size])
        return {slot: episode.next_action() for slot, (_, episode) in running.items()}

    def _feed(self, hungry: Sequence[tuple[int, RecedingHorizon]]) -> None:
        rows = [*hungry, *[hungry[-1]] * (self._batch_size - len(hungry))]
        seeds = [call_seed(seed, episode.step, self._noise_seed) for seed, episode in rows]
        with torch.inference_mode():
            chunks = self._policy.act(self._observe([episode.frames for _, episode in rows]), seeds).cpu().numpy()
        for (_, episode), chunk in zip(hungry, chunks, strict=False):
            episode.plan(chunk)

    def _observe(self, rows: Sequence[Sequence[Frame]]) -> Observation:
        images = {
            camera: torch.from_numpy(np.stack([[frame.images[camera] for frame in frames] for frames in rows]))
            for camera in self._policy.cameras
        }
        state = torch.from_numpy(np.stack([[frame.state for frame in frames] for frames in rows]))
        goal = None if self._goal is None else self._goal.expand(len(rows), -1)
        return Observation(images, state.float(), goal=goal).to(self._device)


def chunked_actor(
    policy: ChunkPolicy,
    slots: int,
    device: torch.device | str,
    goal: Sequence[float] | None = None,
    noise_seed: int = 0,
) -> ChunkedActor:
    """An actor for `slots` episodes at a time, set up according to the policy's configuration; `goal` and `noise_seed`
    as in `ChunkedActor`."""
    config, device = policy.config, torch.device(device)
    rows = rows_of_calls(device, slots)
    return ChunkedActor(policy, config.executed, device, rows, config.ensemble_weight, goal, noise_seed)
