"""Behaviour cloning: one forward pass gives the whole chunk."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from pixio_robot.data.stats import Statistics
from pixio_robot.types import DemoSpec
from policies.base import ChunkPolicy
from policies.config import BCConfig

LOSSES = {"l1": functional.l1_loss, "mse": functional.mse_loss}


class BCPolicy(ChunkPolicy):
    """A deterministic MLP from the condition to the chunk."""

    def __init__(self, config: BCConfig, spec: DemoSpec, statistics: Statistics, encoder: nn.Module | None):
        super().__init__(config, spec, statistics, encoder)
        self._loss = LOSSES[config.loss]
        layers: list[nn.Module] = []
        width = self.conditioning.out_dim
        for _ in range(config.depth):
            layers += [
                nn.Linear(width, config.width),
                nn.LayerNorm(config.width),
                nn.GELU(),
                nn.Dropout(config.dropout),
            ]
            width = config.width
        self.trunk = nn.Sequential(*layers, nn.Linear(width, config.horizon * spec.action_dim))

    def _errors(self, condition_bc: Tensor, actions_bna: Tensor) -> Tensor:
        return self._loss(self._sample(condition_bc, None), actions_bna, reduction="none")

    def _sample(self, condition_bc: Tensor, seeds: Sequence[int] | None) -> Tensor:
        return self.trunk(condition_bc).view(-1, self.horizon, self.spec.action_dim)
