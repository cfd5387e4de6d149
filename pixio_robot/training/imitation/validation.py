"""Validation of a policy: loss and action error on held-out windows."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from pixio_robot.training.distributed.processes import Processes, current_processes
from pixio_robot.training.distributed.strategy import DistributedModel
from pixio_robot.training.imitation.weighting import LEAST_SHARE, relative_weight
from pixio_robot.training.job import BatchStream
from pixio_robot.training.loop import LoopConfig
from pixio_robot.training.monitoring.metrics import MetricBuffer, average_metrics
from pixio_robot.types import Batch, TrainablePolicy

VALIDATION_SEED = 0


class Validation:
    """Loss and action error, by dimension and by task, on the same windows with the same noise every time. For losses
    that draw noise, it differs with the number of processes."""

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
                for name, error in self._action_errors(batch, processes).items():
                    buffer.add(name, error)
        buffer.average(processes)
        return average_metrics(buffer.fetch())

    def _action_errors(self, batch: Batch, processes: Processes) -> dict[str, Tensor]:
        """Mean distance to the demonstrated actions, overall, by dimension (in its own unit) and by task.

        Sums are divided by the number of steps of an average process, so that the mean over processes is that over all
        steps.
        """
        rows = len(batch.actions)
        seeds = range(processes.rank * rows, (processes.rank + 1) * rows)
        # Blocks that are gathered in half precision need autocast.
        with self._loop.autocast(self._device) if self._model.sharded else contextlib.nullcontext():
            actions_bna = self._model.module(batch, seeds=list(seeds)).float()
        distances_ba, steps_b = sum_distances(actions_bna, batch)
        errors_a = distances_ba.sum(0) / processes.all_reduce_mean(steps_b.sum()).clamp(min=LEAST_SHARE)
        errors = {f"/{name}": error for name, error in zip(self._policy.spec.action_names, errors_a, strict=True)}
        named = {f"validation_action_error{name}": error for name, error in {"": errors_a.mean(), **errors}.items()}
        if (goal_bg := batch.observation.goal) is None:
            return named
        goals_tg = torch.tensor(list(self._policy.goals.values()), dtype=goal_bg.dtype, device=goal_bg.device)
        of_task_tb = (goals_tg[:, None] == goal_bg).all(-1).float()
        steps_t = processes.all_reduce_mean((of_task_tb * steps_b).sum(-1))
        errors_t = (of_task_tb * distances_ba.mean(-1)).sum(-1) / steps_t.clamp(min=LEAST_SHARE)
        of_tasks = zip(self._policy.goals, errors_t, steps_t.tolist(), strict=True)
        return named | {f"validation_task_error/{task}": error for task, error, steps in of_tasks if steps}


def sum_distances(actions_bna: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Sums over the steps of each row that are not ignored: of the absolute error of every dimension of the actions
    (b, a), and their number (b,).

    The policy returns the last n steps of the chunk that it is trained on.
    """
    n = actions_bna.shape[1]
    real_bn = (~batch.ignored[:, -n:]).float()
    distances_bna = (actions_bna - batch.actions[:, -n:]).abs()
    return (distances_bna * real_bn[:, :, None]).sum(1), real_bn.sum(1)
