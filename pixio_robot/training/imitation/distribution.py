"""A policy over the processes of a training: its loss as one module, compiled or sharded."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, cast

import torch
from torch import nn

from pixio_robot.training.distributed.strategy import DistributedModel, distribute_model
from pixio_robot.training.imitation.encoders import transformer_blocks
from pixio_robot.training.loop import LoopConfig
from pixio_robot.types import Batch, Observation, TrainablePolicy
from pixio_robot.vision.weight_init import Weights, add_prefix


def distribute_policy(
    policy: TrainablePolicy,
    loop: LoopConfig,
    device: torch.device,
    weights: Weights | None,
    prepare_on: Collection[Observation],
) -> DistributedModel:
    """The policy's `_LossModule` over the processes, with its weights, prepared on these observations if any."""
    loss_module = _LossModule(cast(nn.Module, policy))
    blocks = [block for encoder in policy.encoders for block in transformer_blocks(encoder)]
    if weights is not None:
        weights = add_prefix("policy.", weights)
    distributed_model = distribute_model(
        loss_module, blocks, loop.parallel, device, loop.compile, loop.precision(device), weights
    )
    if prepare_on:
        distributed_model.register_forward_method("prepare")
        # If blocks are gathered in half precision, the layers around them need autocast.
        with loop.autocast(device) if distributed_model.sharded else contextlib.nullcontext():
            loss_module.prepare(observation.to(device) for observation in prepare_on)
        distributed_model.reshard()
    return distributed_model


class _LossModule(nn.Module):
    """Wrap a policy so that calling it returns the loss (with `seeds`: the actions), as DDP and FSDP need."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy = policy
        self._compiled: Callable[[Batch], Any] | None = None

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the loss of training steps only; validation uses other shapes and stays uncompiled."""
        self._compiled = torch.compile(cast(TrainablePolicy, self.policy).loss, *args, **kwargs)

    def prepare(self, observations: Iterable[Observation]) -> None:
        cast(TrainablePolicy, self.policy).prepare(observations)

    def forward(self, batch: Batch, seeds: Sequence[int] | None = None) -> Any:
        policy = cast(TrainablePolicy, self.policy)
        if seeds is not None:
            return policy.act(batch.observation, seeds)
        if self._compiled is not None and self.policy.training:
            return self._compiled(batch)
        return policy.loss(batch)
