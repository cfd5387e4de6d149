"""Receding-horizon execution: the one place where action chunks become one action per control step.

A policy's chunk starts at the step of its newest frame. `execute` of its actions are carried out, then it is asked
again. Frames that no call will look at need not be rendered, which is most of the cost of a simulated step.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from pixio_robot.errors import UserError
from pixio_robot.types import Frame, Observation, Policy


def call_seed(episode_seed: int, step: int) -> int:
    """The noise seed of the policy call at that step of that episode, in [0, 2^63)."""
    digest = hashlib.blake2b(f"{episode_seed}/{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def check_execute(execute: int, horizon: int, setting: str = "execute") -> None:
    """Raise UserError where a chunk has no such number of actions to carry out; `setting`: what the user calls it."""
    if not 1 <= execute <= horizon:
        raise UserError(f"{setting} = {execute} must lie between 1 and the policy's horizon, {horizon}.")


@dataclasses.dataclass
class _Slot:
    """One running episode."""

    seed: int
    frames: collections.deque[Frame]
    step: int = 0
    queue: collections.deque[np.ndarray] = dataclasses.field(default_factory=collections.deque)
    chunks: list[tuple[int, np.ndarray]] = dataclasses.field(default_factory=list)
    """(first step, actions) of earlier calls, oldest first; kept only for temporal ensembling."""


class ChunkedActor:
    """Runs one policy in many slots at once; implements `types.Actor`.

    Every call of the policy has exactly `batch_size` rows (the last ones repeat a real row when fewer are needed),
    so what a slot gets does not depend on which other slots are active.
    """

    def __init__(
        self,
        policy: Policy,
        execute: int,
        device: torch.device | str = "cpu",
        batch_size: int = 8,
        ensemble_weight: float | None = None,
        goal: Sequence[float] | None = None,
    ):
        """`ensemble_weight`: average all earlier predictions for a step with weights exp(-w i), i = 0 the oldest
        (temporal ensembling, ACT, Zhao et al. 2023; they use w = .01 with execute = 1); None turns it off.
        `goal` (g,): what is wanted in every slot, for a policy that is told."""
        check_execute(execute, policy.horizon)
        if batch_size < 1:
            raise UserError(f"batch_size = {batch_size} must be at least 1.")
        self._policy = policy
        self._execute = execute
        self._device = torch.device(device)
        self._batch_size = batch_size
        self._ensemble_weight = ensemble_weight
        self._goal = None if goal is None else torch.tensor(goal, dtype=torch.float32)
        self._slots: dict[int, _Slot] = {}
        if isinstance(policy, nn.Module):
            policy.eval().to(self._device)

    def reset(self, slot: int, seed: int) -> None:
        self._slots[slot] = _Slot(seed, collections.deque(maxlen=self._policy.observation_steps))

    def needs_images(self, slot: int) -> bool:
        # With q actions still queued the next call comes q frames after the next one, and looks back over
        # `observation_steps` frames. The very first frame always counts: it stands in for the missing history.
        queued = len(self._slots[slot].queue)
        return bool(self._policy.cameras) and queued < self._policy.observation_steps

    def act(self, frames: Mapping[int, Frame]) -> dict[int, np.ndarray]:
        for index, frame in frames.items():
            history = self._slots[index].frames
            history.extend([frame] * (1 if history else self._policy.observation_steps))
        hungry = [index for index in frames if not self._slots[index].queue]
        for start in range(0, len(hungry), self._batch_size):
            self._refill(hungry[start : start + self._batch_size])
        actions = {}
        for index in frames:
            slot = self._slots[index]
            actions[index] = slot.queue.popleft()
            slot.step += 1
        return actions

    def _refill(self, indices: Sequence[int]) -> None:
        slots = [self._slots[index] for index in indices]
        rows = slots + [slots[-1]] * (self._batch_size - len(slots))
        seeds = [call_seed(slot.seed, slot.step) for slot in rows]
        with torch.inference_mode():
            chunks = self._policy.act(self._observe(rows), seeds).cpu().numpy()
        for slot, chunk in zip(slots, chunks, strict=False):
            slot.queue.extend(self._plan(slot, chunk))

    def _observe(self, rows: Sequence[_Slot]) -> Observation:
        images = {
            camera: torch.from_numpy(np.stack([[frame.images[camera] for frame in slot.frames] for slot in rows]))
            for camera in self._policy.cameras
        }
        state = torch.from_numpy(np.stack([[frame.state for frame in slot.frames] for slot in rows]))
        goal = None if self._goal is None else self._goal.expand(len(rows), -1)
        return Observation(images, state.float(), goal=goal).to(self._device)

    def _plan(self, slot: _Slot, chunk: np.ndarray) -> np.ndarray:
        if self._ensemble_weight is None:
            return chunk[: self._execute].copy()
        slot.chunks = [(start, old) for start, old in slot.chunks if start + len(old) > slot.step]
        slot.chunks.append((slot.step, chunk))
        planned = []
        for step in range(slot.step, slot.step + self._execute):
            votes = [old[step - start] for start, old in slot.chunks if step < start + len(old)]
            weights = [math.exp(-self._ensemble_weight * age) for age in range(len(votes))]
            planned.append(np.average(votes, axis=0, weights=weights).astype(chunk.dtype))
        return np.stack(planned)
