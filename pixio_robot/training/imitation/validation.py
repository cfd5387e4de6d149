"""Validation of a policy: loss and action error on held-out windows."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from pixio_robot.training.distributed.processes import Processes, current_processes
from pixio_robot.training.distributed.strategy import DistributedModel
from pixio_robot.training.imitation.weighting import relative_weight
from pixio_robot.training.job import BatchStream
from pixio_robot.training.loop import LoopConfig
from pixio_robot.training.monitoring.metrics import MetricBuffer, average_metrics
from pixio_robot.types import Batch, TrainablePolicy

VALIDATION_SEED = 0


class Validation:
    """Loss and action error on the same windows with the same noise every time. For losses that draw noise, it differs
    with the number of processes."""

    def __init__(
        self,
        policy: TrainablePolicy,
        model: DistributedModel,
        batches: BatchStream,
        batches_per_validation: int,
        loop: LoopConfig,
        device: torch.device,
    ) -> None:
        self._policy, self._model, self._batches = policy, model, batches
        self._batches_per_validation, self._loop, self._device = batches_per_validation, loop, device
        self._beginning = batches.state_dict()

    def __call__(self, step: int) -> dict[str, float]:
        processes = current_processes()
        torch.manual_seed(VALIDATION_SEED + processes.rank)
        self._batches.load_state_dict(self._beginning)
        buffer = MetricBuffer()
        for index in range(self._batches_per_validation):
            batch = next(self._batches).to(self._device)
            with self._loop.autocast(self._device):
                loss, metrics = self._model.module(batch)
            weight = relative_weight(self._policy.real_share(batch), processes)
            for name, value in {**metrics, "loss": loss}.items():
                buffer.add(f"validation_{name}", value * weight)
            if index == 0:
                errors_a = self._action_errors(batch, processes)
                buffer.add("validation_action_error", errors_a.mean())
                for name, error in zip(self._policy.spec.action_names, errors_a, strict=True):
                    buffer.add(f"validation_action_error/{name}", error)
        buffer.average(processes)
        return average_metrics(buffer.fetch())

    def _action_errors(self, batch: Batch, processes: Processes) -> Tensor:
        """`action_errors` (a,) of the policy, weighted so that the mean over processes is that over all steps."""
        rows = len(batch.actions)
        seeds = range(processes.rank * rows, (processes.rank + 1) * rows)
        # Blocks that are gathered in half precision need autocast.
        with self._loop.autocast(self._device) if self._model.sharded else contextlib.nullcontext():
            actions_bna = self._model.module(batch, seeds=list(seeds)).float()
        real_steps = (~batch.ignored[:, -actions_bna.shape[1] :]).float().sum()
        return action_errors(actions_bna, batch) * relative_weight(real_steps, processes)


def action_errors(actions_bna: Tensor, batch: Batch) -> Tensor:
    """Mean absolute error of every dimension of the actions (a,), in its own unit, over the steps that are not ignored.

    The policy returns the last n steps of the chunk that it is trained on.
    """
    n = actions_bna.shape[1]
    real_bn1 = (~batch.ignored[:, -n:])[:, :, None]
    distance_bna = (actions_bna - batch.actions[:, -n:]).abs() * real_bn1
    return distance_bna.sum(dim=(0, 1)) / real_bn1.sum().clamp(min=1)
