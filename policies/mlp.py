"""The trunk that behaviour cloning shares: condition in, one vector out."""

from __future__ import annotations

from torch import nn

from policies.config import MLPConfig

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}


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
