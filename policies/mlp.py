"""The trunk that behaviour cloning shares: condition in, one vector out."""

from __future__ import annotations

import dataclasses

from torch import nn

from pixio_robot.choice import one_of
from policies.config import PolicyConfig, require, require_name

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}


@dataclasses.dataclass(kw_only=True)
class MLPConfig(PolicyConfig):
    """A trunk of `depth` hidden layers."""

    width: int = 512
    """Of the hidden layers."""
    depth: int = 2
    """How many there are."""
    activation: str = one_of("gelu", ACTIVATIONS)
    """Between them."""
    layer_norm: bool = True
    """Normalise every hidden layer."""
    input_batch_norm: bool = False
    """Normalise the condition by running statistics of the batches (CortexBench)."""
    dropout: float = 0.0
    """Share of activations set to 0 in training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_name("activation", self.activation, tuple(ACTIVATIONS))
        require(self.width >= 1 and self.depth >= 1, f"width = {self.width} and depth = {self.depth} must be positive.")
        require(0 <= self.dropout < 1, f"dropout = {self.dropout} must lie in [0, 1).")


def build_mlp(config: MLPConfig, width_in: int, width_out: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.BatchNorm1d(width_in)] if config.input_batch_norm else []
    width = width_in
    for _ in range(config.depth):
        layers.append(nn.Linear(width, config.width))
        if config.layer_norm:
            layers.append(nn.LayerNorm(config.width))
        layers += [ACTIVATIONS[config.activation](), nn.Dropout(config.dropout)]
        width = config.width
    return nn.Sequential(*layers, nn.Linear(width, width_out))
