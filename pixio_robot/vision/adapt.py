"""How much of a pre-trained encoder is trained along with a policy."""

from __future__ import annotations

import dataclasses
import enum
import re

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

    def __post_init__(self) -> None:
        if self.last_k < 1:
            raise UserError(f"adapt.last_k={self.last_k} must be at least 1.")


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
