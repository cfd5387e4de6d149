"""Imitation: a policy learns from demonstrations."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from pixio_robot.errors import UserError
from pixio_robot.training.device import pick_device
from pixio_robot.training.job import BatchStream, Hook, Job
from pixio_robot.training.loop import LoopConfig, fit
from pixio_robot.training.metrics import Window, means
from pixio_robot.training.optim import OptimConfig, parameter_groups
from pixio_robot.training.record import FitResult
from pixio_robot.types import Batch, Policy

VALIDATION_SEED = 0


@dataclasses.dataclass(kw_only=True)
class ImitateConfig:
    batch_size: int = 64
    """Windows."""
    validation_share: float = 0.1
    """Episodes held out of the training data; 0 for none."""
    validation_every: int = 500
    validation_batches: int = 8
    encoder_lr_scale: float = 0.1
    """Learning rate of a trained encoder over the policy's (UMI)."""
    use_ema: bool = True
    """Evaluate and keep the moving average of the weights."""
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    loop: LoopConfig = dataclasses.field(default_factory=LoopConfig)
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("batch_size", "validation_every", "validation_batches"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must be at least 1.")
        if not 0 <= self.validation_share < 1:
            raise UserError(f"validation_share={self.validation_share} must lie in [0, 1).")
        if self.encoder_lr_scale <= 0:
            raise UserError(f"encoder_lr_scale={self.encoder_lr_scale} must be above 0; freeze the encoder instead.")


def imitate(
    policy: Policy,
    train_batches: BatchStream,
    validation_batches: BatchStream | None,
    config: ImitateConfig,
    run_dir: Path | str,
    save_model: Callable[[Path], None],
    settings: Mapping[str, Any] | None = None,
) -> FitResult:
    """Train `policy` (an `nn.Module`) in `run_dir`, continuing what is there; it ends up on the device.

    `train_batches` and `validation_batches` yield `types.Batch` and are closed at the end. `save_model` writes the
    policy, whose weights are the averages while it runs. `settings`: what else decides the result (data, policy), as
    JSON values. When this returns, `policy` itself holds the last weights, not the averages.
    """
    device = pick_device(config.device)
    model = cast(nn.Module, policy).to(device)
    loss_of = torch.compile(policy.loss) if config.loop.compile else policy.loss

    def step(batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        return loss_of(batch.to(device))

    hooks = []
    if validation_batches is not None:
        beginning = validation_batches.state_dict()

        def validate(number: int) -> dict[str, float]:
            torch.manual_seed(VALIDATION_SEED)  # the same noise and the same windows every time
            validation_batches.load_state_dict(beginning)
            window = Window()
            for _ in range(config.validation_batches):
                with config.loop.autocast(device):
                    loss, metrics = policy.loss(next(validation_batches).to(device))
                for name, value in {**metrics, "loss": loss}.items():
                    window.add(f"validation_{name}", value)
            return means(window.fetch())

        hooks.append(Hook(every=config.validation_every, call=validate))
    job = Job(
        title="train",
        model=model,
        device=device,
        batches=train_batches,
        batch_size=config.batch_size,
        step=step,
        groups=parameter_groups(model, lambda name: config.encoder_lr_scale if is_of_encoder(name) else 1.0),
        optim=config.optim,
        save_model=save_model,
        settings={**dataclasses.asdict(config), **(settings or {})},
        hooks=hooks,
        use_ema=config.use_ema,
    )
    try:
        return fit(job, config.loop, run_dir)
    finally:
        if validation_batches is not None:
            validation_batches.close()


def is_of_encoder(parameter: str) -> bool:
    """Whether a parameter of a policy belongs to its encoder: `conditioning.encoder.vit.norm.bias` does."""
    return "encoder" in parameter.split(".")[:-1]
