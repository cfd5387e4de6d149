"""Runs a policy in many environments at once: batched calls, in which each row has the noise of its own episode."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from pixio_robot.data.actions.pose_columns import find_quaternion_columns
from pixio_robot.errors import UserError
from pixio_robot.observation_checks import check_actions
from pixio_robot.receding_horizon import RecedingHorizon, check_execute
from pixio_robot.types import Frame, Observation, Policy

if TYPE_CHECKING:
    from policies.base import ChunkPolicy


def get_call_seed(episode_seed: int, step: int, noise_seed: int = 0) -> int:
    """The seed of the policy call at that step of that episode, in [0, 2^63); depends on `noise_seed` too."""
    suffix = f"/{noise_seed}" if noise_seed else ""
    digest = hashlib.blake2b(f"{episode_seed}/{step}{suffix}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def choose_batch_size(device: torch.device, slots: int) -> int:
    """The number of rows to compute together.

    On a CPU the last digits of a row depend on its position in the batch, and therefore on which slots are active (for
    example after an interruption). So each row is computed alone, which takes a tenth to a quarter more time.
    """
    return slots if device.type == "cuda" else 1


@dataclasses.dataclass(frozen=True)
class _EpisodeState:
    seed: int
    horizon: RecedingHorizon
    goal: Sequence[float] | None


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
        """`execute`, `ensemble_weight`: as in `RecedingHorizon`. `goal` (g,): the goal in every slot for which `reset`
        is given no other, for a goal-conditioned policy. `noise_seed`: a different value replays the same episodes with
        different noise."""
        check_execute(execute, policy.horizon)
        if batch_size < 1:
            raise UserError(f"batch_size = {batch_size} must be at least 1.")
        self._policy = policy
        self._execute = execute
        self._device = torch.device(device)
        self._batch_size = batch_size
        self._ensemble_weight = ensemble_weight
        self._quaternions = find_quaternion_columns(policy.spec.action_names)
        self._goal = goal
        self._noise_seed = noise_seed
        self._slots: dict[int, _EpisodeState] = {}
        if isinstance(policy, nn.Module):
            policy.eval().to(self._device)

    def reset(self, slot: int, seed: int, goal: Sequence[float] | None = None) -> None:
        """Begin an episode; `goal` (g,): its own goal."""
        horizon = RecedingHorizon(
            self._policy.observation_steps, self._execute, self._ensemble_weight, self._quaternions
        )
        self._slots[slot] = _EpisodeState(seed, horizon, self._goal if goal is None else goal)

    def uses_next_frame(self, slot: int) -> bool:
        """Whether the policy will use the slot's next frame, if only its state."""
        return self._slots[slot].horizon.uses_next_frame

    def retains_next_frame(self, slot: int) -> bool:
        """Whether the slot's next frame may also be used by a later policy call; `act` does not copy it."""
        return self._slots[slot].horizon.retains_next_frame

    def needs_images(self, slot: int) -> bool:
        return bool(self._policy.cameras) and self.uses_next_frame(slot)

    def act(self, frames: Mapping[int, Frame]) -> dict[int, np.ndarray]:
        running = {slot: self._slots[slot] for slot in frames}
        for slot, episode in running.items():
            episode.horizon.add_frame(frames[slot])
        needing_chunk = [episode for episode in running.values() if episode.horizon.needs_chunk]
        for start in range(0, len(needing_chunk), self._batch_size):
            self._predict_chunks(needing_chunk[start : start + self._batch_size])
        return {slot: episode.horizon.next_action() for slot, episode in running.items()}

    def _predict_chunks(self, needing_chunk: Sequence[_EpisodeState]) -> None:
        rows = [*needing_chunk, *[needing_chunk[-1]] * (self._batch_size - len(needing_chunk))]
        seeds = [get_call_seed(row.seed, row.horizon.step, self._noise_seed) for row in rows]
        with torch.inference_mode():
            chunks = self._policy.act(self._observe(rows), seeds).cpu().numpy()
        for episode, chunk in zip(needing_chunk, chunks, strict=False):
            check_actions(chunk, f" at step {episode.horizon.step} of the episode with seed {episode.seed}")
            episode.horizon.add_chunk(chunk)

    def _observe(self, rows: Sequence[_EpisodeState]) -> Observation:
        frames = [row.horizon.frames for row in rows]
        images = {
            camera: torch.from_numpy(np.stack([[frame.images[camera] for frame in seen] for seen in frames]))
            for camera in self._policy.cameras
        }
        state = torch.from_numpy(np.stack([[frame.state for frame in seen] for seen in frames]))
        goals = [row.goal for row in rows if row.goal is not None]
        goal = torch.tensor(goals, dtype=torch.float32) if goals else None
        return Observation(images, state.float(), goal=goal).to(self._device)


def make_chunked_actor(
    policy: ChunkPolicy,
    slots: int,
    device: torch.device | str,
    goal: Sequence[float] | None = None,
    noise_seed: int = 0,
) -> ChunkedActor:
    """An actor for `slots` episodes at a time, set up according to the policy's configuration; `goal` and `noise_seed`
    as in `ChunkedActor`."""
    config, device = policy.config, torch.device(device)
    rows = choose_batch_size(device, slots)
    return ChunkedActor(policy, config.executed, device, rows, config.ensemble_weight, goal, noise_seed)
