"""How much of a pre-trained encoder is trained along with a policy, and at which rates."""

from __future__ import annotations

import dataclasses
import enum
import re
from typing import Any

from torch import nn

from pixio_robot.errors import UserError


class Adaptation(enum.Enum):
    FROZEN = "frozen"
    LAST_K = "last_k"
    FULL = "full"


@dataclasses.dataclass(kw_only=True)
class AdaptConfig:
    mode: Adaptation = Adaptation.FROZEN
    last_k: int = 2
    """Blocks trained under `last_k`, counted from the output; the final norm goes with them."""
    lr_scale: float = 0.1
    """Learning rate of the encoder's last layer over the policy's (0.1 in UMI)."""
    layer_decay: float = 0.75
    """Each layer towards the pixels learns at this times the rate of the next."""

    def __post_init__(self) -> None:
        if self.last_k < 1 or self.lr_scale <= 0 or not 0 < self.layer_decay <= 1:
            raise UserError(
                f"Adaptation needs last_k >= 1, lr_scale > 0 and 0 < layer_decay <= 1, not last_k={self.last_k}, "
                f"lr_scale={self.lr_scale}, layer_decay={self.layer_decay}."
            )


def _depths(module: nn.Module) -> dict[str, int]:
    """The depth of every parameter, 0 nearest the pixels; a module that does not tell has one layer."""
    tell = getattr(module, "parameter_depths", None)
    return tell() if callable(tell) else {name: 0 for name, _ in module.named_parameters()}  # type: ignore[return-value]


def adapt(encoder: nn.Module, config: AdaptConfig) -> None:
    """Set `requires_grad` of every parameter, and evaluation mode when frozen."""
    depths = _depths(encoder)
    if config.mode is Adaptation.FROZEN:
        first = max(depths.values(), default=0) + 1
    elif config.mode is Adaptation.FULL:
        first = 0
    else:
        # What lies behind the last block (the final norm) is trained with it.
        deepest_block = max((depths[name] for name in depths if re.search(r"\.\d+\.", name)), default=0)
        first = max(deepest_block - config.last_k + 1, 0)
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(depths[name] >= first)
    if config.mode is Adaptation.FROZEN:
        encoder.eval()


def param_groups(module: nn.Module, lr: float, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Optimiser groups of the parameters that are trained: {"params", "lr", "weight_decay"}.

    Parameters of at most one dimension (biases, norms) are not decayed (pixio.md, Recipe). With `layer_decay` each
    layer towards the pixels learns slower by that factor, for modules that tell `parameter_depths`.
    """
    depths = _depths(module)
    deepest = max(depths.values(), default=0)
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        decayed = parameter.ndim > 1
        group = groups.setdefault(
            (depths[name], decayed),
            {
                "params": [],
                "lr": lr * layer_decay ** (deepest - depths[name]),
                "weight_decay": weight_decay if decayed else 0.0,
            },
        )
        group["params"].append(parameter)
    return list(groups.values())
