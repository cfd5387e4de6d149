"""A mixture of Gaussians over action chunks, for demonstrations that do one of several things.

Shapes: b batch, n steps of the chunk, m modes, a action, f features of the head.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pixio_robot.fields import check_fields, number
from policies.noise import RowNoise

TANH_EDGE = 1e-6
"""Actions are clamped this far from +-1 before atanh, which is infinite there."""


@dataclasses.dataclass(kw_only=True)
class MixtureConfig:
    """Defaults: robomimic's BC-RNN-GMM (Mandlekar et al. 2021)."""

    num_modes: int = number(5, at_least=1)
    """Number of Gaussians in the mixture."""
    min_std: float = number(1e-4, above=0)
    """Minimum standard deviation, in normalised units; keeps the likelihood of a repeated action finite."""
    low_noise_eval: bool = True
    """When acting, sample a mode by its weight and use its mean; false also samples from the mode's Gaussian."""
    use_tanh: bool = False
    """Squash the whole distribution into (-1, 1); false squashes only the means of the modes."""

    def __post_init__(self) -> None:
        check_fields(self, "policy.mixture.")


class Mixture(NamedTuple):
    """logits (b, m); means and stds (b, m, n, a), before the tanh of the distribution if it has one."""

    logits: Tensor
    means: Tensor
    stds: Tensor


class MixtureHead(nn.Module):
    """(b, f) -> a mixture whose m modes are whole chunks, so that a chunk does not switch between modes.

    With a chunk of one step this is robomimic's mixture. Likelihoods and samples are in normalised units.
    """

    def __init__(self, config: MixtureConfig, width_in: int, steps: int, action_dim: int):
        super().__init__()
        self._config = config
        self._shape = (config.num_modes, steps, action_dim)
        self.logits = nn.Linear(width_in, config.num_modes)
        self.means = nn.Linear(width_in, math.prod(self._shape))
        self.stds = nn.Linear(width_in, math.prod(self._shape))

    def forward(self, features_bf: Tensor) -> Mixture:
        # Half precision rounds means by far more than the standard deviation of a narrow mode.
        with torch.autocast(features_bf.device.type, enabled=False):
            features_bf = features_bf.float()
            means = self.means(features_bf).unflatten(1, self._shape)
            stds = functional.softplus(self.stds(features_bf)).unflatten(1, self._shape)
            logits = self.logits(features_bf)
        return Mixture(logits, means if self._config.use_tanh else means.tanh(), stds + self._config.min_std)

    def negative_log_likelihood(self, mixture: Mixture, actions_bna: Tensor, ignored_bn: Tensor) -> Tensor:
        """(b, n, 1), in nats: the joint value for a row's real steps, divided equally among them."""
        real_bn = (~ignored_bn).float()
        log_jacobian_bn = torch.zeros_like(real_bn)
        if self._config.use_tanh:
            squashed = actions_bna.clamp(-1 + TANH_EDGE, 1 - TANH_EDGE)
            actions_bna = squashed.atanh()
            log_jacobian_bn = (1 - squashed**2).log().sum(dim=-1)
        standard = (actions_bna[:, None] - mixture.means) / mixture.stds
        log_density_bmn = (-0.5 * standard**2 - mixture.stds.log() - 0.5 * math.log(2 * math.pi)).sum(dim=-1)
        log_chunk_bm = ((log_density_bmn - log_jacobian_bn[:, None]) * real_bn[:, None]).sum(dim=-1)
        total_b = torch.logsumexp(mixture.logits.log_softmax(dim=-1) + log_chunk_bm, dim=-1)
        shares_b = -total_b / real_bn.sum(dim=-1).clamp(min=1)
        return shares_b[:, None, None].expand(-1, actions_bna.shape[1], 1)

    def sample(self, mixture: Mixture, noise: RowNoise) -> Tensor:
        """Actions (b, n, a) from one mode per row, sampled by its weight."""
        _, steps, action_dim = self._shape
        cumulative_bm = mixture.logits.softmax(dim=-1).cumsum(dim=-1)
        mode_b = (noise.uniform(1).float() >= cumulative_bm[:, :-1]).sum(dim=-1)
        rows = torch.arange(len(mode_b), device=mode_b.device)
        actions_bna = mixture.means[rows, mode_b]
        if not self._config.low_noise_eval:
            actions_bna = actions_bna + mixture.stds[rows, mode_b] * noise.normal(steps, action_dim)
        return actions_bna.tanh() if self._config.use_tanh else actions_bna
