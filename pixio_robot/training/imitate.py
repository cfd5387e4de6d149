"""Imitation learning: train a policy on demonstrations."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from pixio_robot.errors import UserError
from pixio_robot.fields import check_fields, number, one_of
from pixio_robot.machine import to_device
from pixio_robot.training.best_checkpoints import METRICS, BestCheckpoints
from pixio_robot.training.device import pick_device
from pixio_robot.training.distributed.processes import Processes, current_processes
from pixio_robot.training.distributed.strategy import DistributedModel, distribute_model, gather_full_state_dict
from pixio_robot.training.job import BatchStream, Hook, Job
from pixio_robot.training.loop import LoopConfig, fit
from pixio_robot.training.monitoring.metrics import MetricBuffer, average_metrics
from pixio_robot.training.optim import OptimConfig, parameter_groups
from pixio_robot.training.run_record import FitResult
from pixio_robot.types import Batch, Observation, TrainablePolicy
from pixio_robot.vision.adapt import lr_scales
from pixio_robot.vision.weight_init import Weights, add_prefix

VALIDATION_SEED = 0
LEAST_SHARE = 1e-9
"""Avoids division by zero where the loss ignores all action steps."""

SaveModel = Callable[[Path, nn.Module], None]
"""Save this policy, which is on the CPU or the training device, to a directory that may already exist."""
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
    save = _make_save(cast(nn.Module, policy), save_model)
    distributed_model = _distribute(policy, config.loop, device, weights, prepare_on)
    hooks = [make_hook(save) for make_hook in hook_factories]
    if validation_batches is not None:
        validate = _Validation(policy, distributed_model, validation_batches, config, device)
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

    def step(weighted: _WeightedBatch) -> tuple[Tensor, Mapping[str, Tensor]]:
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
        weight_batches=lambda batches: _weight_batches(policy, batches, processes, device),
        groups=parameter_groups(model, lambda name: rates.get(name, 1.0)),
        optim=config.optim,
        save_model=save,
        settings=settings,
        hooks=hooks,
        use_ema=config.use_ema,
        distributed_model=distributed_model,
    )


def _distribute(
    policy: TrainablePolicy,
    loop: LoopConfig,
    device: torch.device,
    weights: Weights | None,
    prepare_on: Collection[Observation],
) -> DistributedModel:
    """The policy's `_LossModule` over the processes, with its weights, prepared on these observations if any."""
    loss_module = _LossModule(cast(nn.Module, policy))
    blocks = [block for encoder in policy.encoders for block in _transformer_blocks(encoder)]
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


def _make_save(model: nn.Module, save_model: SaveModel) -> Callable[[Path], None]:
    """A function that saves the whole model; all processes must call it. Make it before the parameters are sharded over
    them: the first process loads the gathered weights into a copy that is not."""
    processes = current_processes()
    if processes.world_size == 1:
        return lambda directory: save_model(directory, model)
    template = _copy_on_meta_device(model) if processes.is_main else None

    def save(directory: Path) -> None:
        weights = gather_full_state_dict(model.state_dict())
        if template is not None:
            unsharded = copy.deepcopy(template)
            unsharded.load_state_dict(weights, assign=True)
            save_model(directory, unsharded)

    return save


def _copy_on_meta_device(model: nn.Module) -> nn.Module:
    """A copy on the CPU with parameters and persistent buffers on the meta device."""
    copies = {id(constant): constant.to("cpu", copy=True) for constant in model.buffers() if not constant.is_meta}
    for tensor in model.state_dict(keep_vars=True).values():
        nothing = torch.empty_like(tensor, device="meta")
        is_parameter = isinstance(tensor, nn.Parameter)
        copies[id(tensor)] = nn.Parameter(nothing, tensor.requires_grad) if is_parameter else nothing
    return copy.deepcopy(model, copies)


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


@dataclasses.dataclass(frozen=True)
class _WeightedBatch:
    """`real_share`: of the policy, on the device. `weight`: of the losses, 1 on average over all batches of the update
    and all processes."""

    batch: Batch
    real_share: Tensor
    weight: Tensor


def _weight_batches(
    policy: TrainablePolicy, batches: Sequence[Batch], processes: Processes, device: torch.device
) -> list[_WeightedBatch]:
    """Weight the batches of an update by their numbers of real action steps, so that the update is that of one batch.

    These are counted before the batches are on the device, so that nothing waits for it.
    """
    shares = to_device(torch.stack([policy.real_share(batch) for batch in batches]), device)
    weights = _relative_weight(shares, processes)
    return [_WeightedBatch(*each) for each in zip(batches, shares.unbind(), weights.unbind(), strict=True)]


def _relative_weight(own: Tensor, processes: Processes) -> Tensor:
    """This process's values, of any shape, divided by the mean of those of all processes."""
    return own / processes.all_reduce_mean(own.mean()).clamp(min=LEAST_SHARE)


class _Validation:
    """Loss and action error on the same windows with the same noise every time. For losses that draw noise, it differs
    with the number of processes."""

    def __init__(
        self,
        policy: TrainablePolicy,
        model: DistributedModel,
        batches: BatchStream,
        config: ImitateConfig,
        device: torch.device,
    ) -> None:
        self._policy, self._model, self._batches = policy, model, batches
        self._config, self._device = config, device
        self._beginning = batches.state_dict()

    def __call__(self, step: int) -> dict[str, float]:
        processes = current_processes()
        torch.manual_seed(VALIDATION_SEED + processes.rank)
        self._batches.load_state_dict(self._beginning)
        buffer = MetricBuffer()
        for index in range(self._config.validation_batches):
            batch = next(self._batches).to(self._device)
            with self._config.loop.autocast(self._device):
                loss, metrics = self._model.module(batch)
            weight = _relative_weight(self._policy.real_share(batch), processes)
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
        with self._config.loop.autocast(self._device) if self._model.sharded else contextlib.nullcontext():
            actions_bna = self._model.module(batch, seeds=list(seeds)).float()
        real_steps = (~batch.ignored[:, -actions_bna.shape[1] :]).float().sum()
        return action_errors(actions_bna, batch) * _relative_weight(real_steps, processes)


def action_errors(actions_bna: Tensor, batch: Batch) -> Tensor:
    """Mean absolute error of every dimension of the actions (a,), in its own unit, over the steps that are not ignored.

    The policy returns the last n steps of the chunk that it is trained on.
    """
    n = actions_bna.shape[1]
    real_bn1 = (~batch.ignored[:, -n:])[:, :, None]
    distance_bna = (actions_bna - batch.actions[:, -n:]).abs() * real_bn1
    return distance_bna.sum(dim=(0, 1)) / real_bn1.sum().clamp(min=1)


def named_encoders(policy: TrainablePolicy) -> list[tuple[str, nn.Module]]:
    """The encoders of a policy with their names among its modules."""
    names = {id(module): name for name, module in cast(nn.Module, policy).named_modules()}
    return [(names[id(encoder)], encoder) for encoder in policy.encoders]


def encoder_lr_scales(policy: TrainablePolicy, scale: float, layer_decay: float) -> dict[str, float]:
    """Learning rate of every encoder parameter relative to that of the policy."""
    return {
        f"{prefix}.{name}": scale * share
        for prefix, encoder in named_encoders(policy)
        for name, share in lr_scales(encoder, layer_decay).items()
    }


def _transformer_blocks(encoder: nn.Module) -> list[nn.Module]:
    """The blocks of a Pixio encoder, which FSDP gathers one by one; other encoders are sharded as a whole."""
    with contextlib.suppress(AttributeError):
        return list(encoder.vit.blocks)  # pyright: ignore[reportCallIssue, reportArgumentType, reportAttributeAccessIssue]
    return []
