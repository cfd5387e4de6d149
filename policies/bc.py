"""Behaviour cloning: one forward pass predicts the whole chunk."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from pixio_robot.data.stats import Statistics
from pixio_robot.fields import one_of
from pixio_robot.types import DemoSpec
from policies.base import ChunkPolicy
from policies.networks.mlp import MLPConfig, build_mlp
from policies.observation_encoder.conditioning import Conditioning

LOSSES = {"l1": functional.l1_loss, "mse": functional.mse_loss}


@dataclasses.dataclass(kw_only=True)
class BCConfig(MLPConfig):
    """An MLP of `depth` hidden layers that predicts one chunk."""

    loss: str = one_of("l1", LOSSES)
    """Loss on normalised actions: absolute (l1) or squared (mse) error."""


class BCPolicy(ChunkPolicy):
    """A deterministic MLP from the condition to the chunk."""

    config_class = BCConfig
    conditioning: Conditioning

    def __init__(self, config: BCConfig, spec: DemoSpec, statistics: Statistics, encoder: nn.Module | None):
        super().__init__(config, spec, statistics, encoder)
        self._loss = LOSSES[config.loss]
        self.trunk = build_mlp(config, self.conditioning.out_dim, config.horizon * spec.action_dim)

    def errors(self, seen: Tensor, actions_bna: Tensor, ignored_bn: Tensor) -> Tensor:
        return self._loss(self.sample(seen, None), actions_bna, reduction="none")

    def sample(self, seen: Tensor, seeds: Sequence[int] | None) -> Tensor:
        return self.trunk(seen).view(-1, self.chunk, self.spec.action_dim)
