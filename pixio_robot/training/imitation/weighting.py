"""Weights of the batches of an update, by how many real action steps each has."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from pixio_robot.machine import to_device
from pixio_robot.training.distributed.processes import Processes
from pixio_robot.types import Batch, TrainablePolicy

LEAST_SHARE = 1e-9
"""Avoids division by zero where the loss ignores all action steps."""


@dataclasses.dataclass(frozen=True)
class WeightedBatch:
    """`real_share`: of the policy, on the device. `weight`: of the losses, 1 on average over all batches of the update
    and all processes."""

    batch: Batch
    real_share: Tensor
    weight: Tensor


def weight_batches(
    policy: TrainablePolicy, batches: Sequence[Batch], processes: Processes, device: torch.device
) -> list[WeightedBatch]:
    """Weight the batches of an update by their numbers of real action steps, so that the update is that of one batch.

    These are counted before the batches are on the device, so that nothing waits for it.
    """
    shares = to_device(torch.stack([policy.real_share(batch) for batch in batches]), device)
    weights = relative_weight(shares, processes)
    return [WeightedBatch(*each) for each in zip(batches, shares.unbind(), weights.unbind(), strict=True)]


def relative_weight(own: Tensor, processes: Processes) -> Tensor:
    """This process's values, of any shape, divided by the mean of those of all processes."""
    return own / processes.all_reduce_mean(own.mean()).clamp(min=LEAST_SHARE)
