"""Imitation learning: train a policy on demonstrations."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from pixio_robot.errors import UserError
from pixio_robot.fields import check_fields, number, one_of
from pixio_robot.training.best_checkpoints import METRICS, BestCheckpoints
from pixio_robot.training.device import pick_device
from pixio_robot.training.distributed.processes import current_processes
from pixio_robot.training.distributed.strategy import DistributedModel
from pixio_robot.training.imitation.distribution import distribute_policy
from pixio_robot.training.imitation.encoders import encoder_lr_scales
from pixio_robot.training.imitation.saving import SaveModel, make_save
from pixio_robot.training.imitation.validation import Validation
from pixio_robot.training.imitation.weighting import WeightedBatch, weight_batches
from pixio_robot.training.job import BatchStream, Hook, Job
from pixio_robot.training.loop import LoopConfig, fit
from pixio_robot.training.optim import OptimConfig, parameter_groups
from pixio_robot.training.run_record import FitResult
from pixio_robot.types import Observation, TrainablePolicy
from pixio_robot.vision.weight_init import Weights

HookFactory = Callable[[Callable[[Path], None]], Hook]
"""Creates a hook, given a function that saves the current policy to a directory."""


@dataclasses.dataclass(kw_only=True)
class ImitateConfig:
    batch_size: int = number(64, at_least=1)
    """Windows per batch, over all processes."""
    validation_share: float = number(0.1, at_least=0, below=1)
    """Fraction of episodes held out for validation; 0: none."""
    validation_every: int = number(500, at_least=1)
    """Steps between validations on the held-out episodes."""
    validation_batches: int = number(8, at_least=1)
    """Batches per validation loss. The action error needs the sampler and uses only the first batch."""
    keep_best: int = number(0, at_least=0)
    """Number of best policies on the held-out episodes to keep in `best/`, in addition to the last one."""
    best_by: str = one_of("validation_action_error", METRICS)
    """Metric to minimise when choosing the best checkpoints."""
    encoder_lr_scale: float = number(0.1, above=0, why="to freeze the encoder, use adapt.mode=frozen")
    """Learning rate of a trained encoder relative to the policy's (default as in UMI)."""
    use_ema: bool = True
    """Validate and save the exponential moving average (EMA) of the weights."""
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    loop: LoopConfig = dataclasses.field(default_factory=LoopConfig)
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: a GPU if available."""

    def __post_init__(self) -> None:
        check_fields(self)


def imitate(
    policy: TrainablePolicy,
    train_batches: BatchStream,
    validation_batches: BatchStream | None,
    config: ImitateConfig,
    run_dir: Path | str,
    save_model: SaveModel,
    settings: Mapping[str, Any] | None = None,
    *,
    layer_decay: float = 1.0,
    hook_factories: Sequence[HookFactory] = (),
    weights: Weights | None = None,
    prepare_on: Collection[Observation] = (),
) -> FitResult:
    """Train `policy` (an `nn.Module`) in `run_dir`, resuming an existing run; the policy is moved to the device.

    `train_batches` and `validation_batches` yield this process's part of every `types.Batch`; both are closed at the
    end. `save_model` is called with the averaged weights. `settings`: everything else that determines the result (data,
    policy), as JSON values. `layer_decay`: learning rate of an encoder layer relative to the next deeper one.
    `weights`: at least those of the parameters on the meta device. `prepare_on`: observations for `prepare`, which is
    called once the weights are loaded. When this returns, `policy` holds the last weights, not the averages.
    """
    device = pick_device(config.device)
    save = make_save(cast(nn.Module, policy), save_model)
    distributed_model = distribute_policy(policy, config.loop, device, weights, prepare_on)
    hooks = [make_hook(save) for make_hook in hook_factories]
    if validation_batches is not None:
        validate = Validation(
            policy, distributed_model, validation_batches, config.validation_batches, config.loop, device
        )
        if config.keep_best:
            validate = BestCheckpoints(run_dir, config.keep_best, config.best_by, validate, save)
        hooks.append(Hook(every=config.validation_every, call=validate))
    elif config.keep_best:
        raise UserError(f"keep_best={config.keep_best} needs held-out episodes to compare on, but none are held out.")
    job = _build_job(
        policy,
        distributed_model,
        train_batches,
        config,
        device,
        layer_decay=layer_decay,
        save=save,
        settings={**dataclasses.asdict(config), **(settings or {})},
        hooks=hooks,
    )
    try:
        return fit(job, config.loop, run_dir)
    finally:
        if validation_batches is not None:
            validation_batches.close()


def _build_job(
    policy: TrainablePolicy,
    distributed_model: DistributedModel,
    train_batches: BatchStream,
    config: ImitateConfig,
    device: torch.device,
    *,
    layer_decay: float,
    save: Callable[[Path], None],
    settings: Mapping[str, Any],
    hooks: list[Hook],
) -> Job:
    model, processes = cast(nn.Module, policy), current_processes()
    rates = encoder_lr_scales(policy, config.encoder_lr_scale, layer_decay)

    def step(weighted: WeightedBatch) -> tuple[Tensor, Mapping[str, Tensor]]:
        loss, metrics = distributed_model.module(weighted.batch.to(device))
        scaled = {name: value * weighted.weight for name, value in metrics.items()}
        return loss * weighted.weight, {**scaled, "real_share": weighted.real_share}

    return Job(
        title="train",
        model=model,
        device=device,
        batches=train_batches,
        batch_size=config.batch_size,
        step=step,
        weight_batches=lambda batches: weight_batches(policy, batches, processes, device),
        groups=parameter_groups(model, lambda name: rates.get(name, 1.0)),
        optim=config.optim,
        save_model=save,
        settings=settings,
        hooks=hooks,
        use_ema=config.use_ema,
        distributed_model=distributed_model,
    )
