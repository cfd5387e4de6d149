"""The MLP trunk shared by the behaviour cloning policies: from the condition to one vector."""

from __future__ import annotations

import dataclasses

from torch import nn

from pixio_robot.fields import number, one_of
from policies.config import PolicyConfig

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}


@dataclasses.dataclass(kw_only=True)
class MLPConfig(PolicyConfig):
    """An MLP trunk of `depth` hidden layers."""

    width: int = number(512, at_least=1)
    """Width of the hidden layers."""
    depth: int = number(2, at_least=1)
    """Number of hidden layers."""
    activation: str = one_of("gelu", ACTIVATIONS)
    """Activation function."""
    layer_norm: bool = True
    """Apply layer normalisation in every hidden layer."""
    input_batch_norm: bool = False
    """Apply batch normalisation to the condition (CortexBench)."""
    dropout: float = number(0.0, at_least=0, below=1)
    """Dropout probability."""


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
