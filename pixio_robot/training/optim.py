"""AdamW, its parameter groups and the learning rate schedule."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from pixio_robot.errors import UserError
from pixio_robot.fields import check_fields, number

DEFAULT_WARMUP_STEPS = 500


@dataclasses.dataclass(kw_only=True)
class OptimConfig:
    """AdamW with linear warm-up and cosine decay. The defaults are those of diffusion policy (Chi et al., IJRR)."""

    lr: float = number(1e-4, above=0)
    """Peak learning rate."""
    betas: list[float] = number([0.95, 0.999], at_least=0, below=1)
    """AdamW's beta1 and beta2: decay rates of the running means of gradients and squared gradients."""
    eps: float = number(1e-8, above=0)
    """Added to the denominator for numerical stability."""
    weight_decay: float = number(1e-6, at_least=0)
    """Weight decay; not applied to biases and norms, i.e. parameters with at most one dimension (Pixio's recipe)."""
    warmup_steps: int | None = number(None, at_least=0)
    """Warm-up steps, over which the learning rate rises linearly to `lr`; None: 500, but at most a tenth of the run."""
    final_lr: float = number(0.0, at_least=0)
    """Learning rate at the end of the cosine decay."""

    def __post_init__(self) -> None:
        check_fields(self, "optim.")
        if self.final_lr > self.lr:
            raise UserError(
                f"optim.final_lr={self.final_lr} must not be above optim.lr={self.lr}: the learning rate decays to it."
            )
        if len(self.betas) != 2:
            raise UserError(f"optim.betas={list(self.betas)} must be two numbers, such as [0.9, 0.95].")


@dataclasses.dataclass
class ParameterGroup:
    """Parameters with the same weight decay and learning rate scale."""

    parameters: dict[str, nn.Parameter]
    lr_scale: float
    decayed: bool
    unfreeze_step: int = 0
    """Number of updates for which the parameters stay frozen."""


def parameter_groups(
    model: nn.Module,
    lr_scale: Callable[[str], float] = lambda name: 1.0,
    unfreeze_step: Callable[[str], int] = lambda name: 0,
) -> list[ParameterGroup]:
    """The trainable parameters of `model`, grouped by `lr_scale(name)`, `unfreeze_step(name)` and use of weight decay.

    Raises UserError if nothing is trainable.
    """
    groups: dict[tuple[float, bool, int], ParameterGroup] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (lr_scale(name), parameter.ndim > 1, unfreeze_step(name))
            group = groups.setdefault(key, ParameterGroup({}, *key))
            group.parameters[name] = parameter
    if not groups:
        raise UserError("The model has no trainable parameters: everything in it is frozen.")
    return list(groups.values())


def frozen_names(model: nn.Module, groups: list[ParameterGroup]) -> set[str]:
    """Names of the parameters in none of the groups, which no update changes."""
    trained = {id(parameter) for group in groups for parameter in group.parameters.values()}
    everything = model.named_parameters(remove_duplicate=False)
    return {name for name, parameter in everything if id(parameter) not in trained}


def build_optimizer(groups: list[ParameterGroup], config: OptimConfig) -> torch.optim.AdamW:
    """AdamW with one torch parameter group per ParameterGroup, in the same order."""
    return torch.optim.AdamW(
        [
            {
                "params": list(group.parameters.values()),
                "weight_decay": config.weight_decay if group.decayed else 0.0,
                "lr_scale": group.lr_scale,
            }
            for group in groups
        ],
        lr=config.lr,
        betas=(config.betas[0], config.betas[1]),
        eps=config.eps,
        fused=True,  # on a CPU a third of the time of torch's default
    )


def learning_rate(step: int, steps: int, config: OptimConfig) -> float:
    """Learning rate at update `step` (from 0) of `steps`: linear warm-up, then cosine decay.

    As diffusers' get_scheduler, except that the warm-up is one update ahead, so that the first update has an effect.
    """
    warmup = min(DEFAULT_WARMUP_STEPS, steps // 10) if config.warmup_steps is None else config.warmup_steps
    if step < warmup:
        return config.lr * (step + 1) / warmup
    share = min((step - warmup) / max(steps - warmup, 1), 1.0)
    return config.final_lr + (config.lr - config.final_lr) * 0.5 * (1 + math.cos(math.pi * share))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def freeze_by_schedule(groups: list[ParameterGroup], step: int) -> bool:
    """Freeze exactly the groups whose `unfreeze_step` is after update `step` (from 0): they get no gradient and are
    excluded from gradient clipping and from the optimiser's moments. Returns whether anything changed."""
    changed = False
    for group in groups:
        for parameter in group.parameters.values() if group.unfreeze_step else ():
            changed |= parameter.requires_grad == (step < group.unfreeze_step)
            parameter.requires_grad_(step >= group.unfreeze_step)
    return changed


def optimizer_tensors(optimizer: torch.optim.Optimizer, groups: list[ParameterGroup]) -> dict[str, Tensor]:
    """The optimiser's state as `<parameter name>|<quantity>`; everything else follows from the configuration."""
    return {
        f"{name}|{quantity}": torch.as_tensor(value)
        for group in groups
        for name, parameter in group.parameters.items()
        for quantity, value in optimizer.state.get(parameter, {}).items()
    }


def empty_optimizer_tensors(groups: list[ParameterGroup], sizes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Empty tensors to load the state of `optimizer_tensors` into, sharded like their parameters.

    Raises KeyError or ValueError if it does not fit.
    """
    parameters = {name: parameter for group in groups for name, parameter in group.parameters.items()}
    empty = {}
    for key, size in sizes.items():
        parameter = parameters[key.rpartition("|")[0]]
        if size and size != parameter.shape:
            raise ValueError(f"{key} has shape {tuple(size)} instead of {tuple(parameter.shape)}")
        empty[key] = torch.zeros_like(parameter.detach()) if size else torch.zeros(())
    return empty


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, groups: list[ParameterGroup], tensors: dict[str, Tensor]
) -> None:
    """Inverse of `optimizer_tensors`, for parameters on any device."""
    by_name: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, quantity = key.rpartition("|")
        by_name.setdefault(name, {})[quantity] = value
    names = [name for group in groups for name in group.parameters]
    state = {index: by_name[name] for index, name in enumerate(names) if name in by_name}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
