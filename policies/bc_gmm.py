"""Behaviour cloning with a Gaussian mixture (Mandlekar et al. 2021), for multimodal demonstrations."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import Tensor, nn

from pixio_robot.data.stats import Statistics
from pixio_robot.errors import UserError
from pixio_robot.types import DemoSpec
from policies.base import ChunkPolicy
from policies.networks.mixture import MixtureConfig, MixtureHead
from policies.networks.mlp import MLPConfig, build_mlp
from policies.noise import RowNoise
from policies.observation_encoder.conditioning import Conditioning


@dataclasses.dataclass(kw_only=True)
class BCGMMConfig(MLPConfig):
    """An MLP that predicts a Gaussian mixture over chunks."""

    mixture: MixtureConfig = dataclasses.field(default_factory=MixtureConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_bounded_actions(self.action_normalisation)


def require_bounded_actions(normalisation: str) -> None:
    """Raise UserError unless actions are normalised to [-1, 1], the range of the modes; others could not be reached."""
    if normalisation != "min_max":
        raise UserError(
            f"A mixture's modes lie in [-1, 1], which requires action_normalisation = min_max, not {normalisation}."
        )


class BCGMMPolicy(ChunkPolicy):
    """The loss is the negative log-likelihood of the demonstrated actions."""

    config_class = BCGMMConfig
    conditioning: Conditioning
    draws = True

    def __init__(self, config: BCGMMConfig, spec: DemoSpec, statistics: Statistics, encoder: nn.Module | None):
        super().__init__(config, spec, statistics, encoder)
        self.trunk = build_mlp(config, self.conditioning.out_dim, config.width)
        self.head = MixtureHead(config.mixture, config.width, config.horizon, spec.action_dim)

    def errors(self, seen: Tensor, actions_bna: Tensor, ignored_bn: Tensor) -> Tensor:
        return self.head.negative_log_likelihood(self.head(self.trunk(seen)), actions_bna, ignored_bn)

    def sample(self, seen: Tensor, seeds: Sequence[int] | None) -> Tensor:
        return self.head.sample(self.head(self.trunk(seen)), RowNoise(seeds, seen))
