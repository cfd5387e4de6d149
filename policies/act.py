"""Action-chunking transformer, ACT (Zhao et al. 2023): a CVAE whose decoder attends to every image patch.

Shapes: b batch, t frames, n steps of the chunk, a action, m tokens seen, e width, z latent, s state.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from pixio_robot.data.stats import Statistics
from pixio_robot.errors import UserError
from pixio_robot.fields import number, one_of
from pixio_robot.types import DemoSpec
from policies.base import ChunkPolicy
from policies.config import PolicyConfig
from policies.networks.embeddings import sinusoidal_embedding
from policies.normalisation import NORMALISATIONS
from policies.observation_encoder.base import ObservationEncoder
from policies.observation_encoder.tokens import TokenObservationEncoder


@dataclasses.dataclass(kw_only=True)
class ACTConfig(PolicyConfig):
    """Action-chunking transformer, with the published defaults. `horizon` is the chunk size; pooling is not used.

    The paper executes one action at a time (execute=1) with temporal ensembling (ensemble_weight=.01).
    """

    horizon: int = 100
    action_normalisation: str = one_of("mean_std", NORMALISATIONS)
    dim_model: int = number(512, at_least=1)
    """Width of the transformers; a multiple of `n_heads`."""
    n_heads: int = number(8, at_least=1)
    """Number of attention heads."""
    dim_feedforward: int = number(3200, at_least=1)
    """Hidden width of the MLPs in the layers."""
    n_encoder_layers: int = number(4, at_least=1)
    """Layers of the encoder, which attends to the patches of all cameras."""
    n_decoder_layers: int = number(1, at_least=1)
    """Layers of the decoder, which predicts the actions."""
    n_vae_encoder_layers: int = number(4, at_least=1)
    """Layers of the VAE encoder, which infers the latent from the demonstrated chunk during training."""
    use_vae: bool = True
    """Train with a latent variable (CVAE)."""
    latent_dim: int = number(32, at_least=1)
    """Dimension of the latent."""
    kl_weight: float = number(10.0, at_least=0)
    """Weight of the latent's KL divergence from a standard normal, relative to the L1 loss."""
    dropout: float = number(0.1, at_least=0, below=1)
    """Dropout probability."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dim_model % self.n_heads:
            raise UserError(f"dim_model = {self.dim_model} must be a multiple of n_heads = {self.n_heads}.")
        if self.conditioning.fusion != "concat" or self.conditioning.joint_pooling:
            raise UserError(
                "ACT attends to the tokens of every frame: leave conditioning.fusion and conditioning.joint_pooling at "
                "their defaults."
            )


class ACTPolicy(ChunkPolicy):
    """The loss is L1 plus the latent's KL divergence from a standard normal. Acts with the latent at its prior mean, 0.

    Positions are added to the tokens once, before the first layer, not in every layer as in the paper.
    """

    config_class = ACTConfig
    config: ACTConfig

    def __init__(self, config: ACTConfig, spec: DemoSpec, statistics: Statistics, encoder: nn.Module | None):
        super().__init__(config, spec, statistics, encoder)
        width = config.dim_model
        self.latent = nn.Parameter(0.02 * torch.randn(1, width))
        """Embedding that distinguishes the latent's token from the others."""
        self.from_latent = nn.Linear(config.latent_dim, width)
        self.memory = _build_transformer_encoder(config, config.n_encoder_layers)
        self.queries = nn.Parameter(torch.randn(config.horizon, width))
        layer = nn.TransformerDecoderLayer(
            width, config.n_heads, config.dim_feedforward, config.dropout, "relu", batch_first=True
        )
        self.decoder = _xavier_initialised(
            nn.TransformerDecoder(layer, config.n_decoder_layers, norm=nn.LayerNorm(width))
        )
        self.out = nn.Linear(width, spec.action_dim)
        self.posterior = LatentEncoder(config, spec.action_dim) if config.use_vae else None

    def build_observation_encoder(self, encoder: nn.Module | None) -> ObservationEncoder:
        config = cast(ACTConfig, self.config)
        return TokenObservationEncoder(
            config.conditioning, config.observation_steps, self.spec, self.statistics, encoder, config.dim_model
        )

    def errors(self, seen: Tensor, actions_bna: Tensor, ignored_bn: Tensor) -> Tensor:
        divergence_b11 = actions_bna.new_zeros(())
        latent_bz = None
        if self.posterior is not None:
            state_be = seen[:, 0] if self.config.conditioning.use_state else None
            mean_bz, log_variance_bz = self.posterior(actions_bna, ignored_bn, state_be)
            latent_bz = mean_bz + (0.5 * log_variance_bz).exp() * torch.randn_like(mean_bz)
            divergence_bz = 0.5 * (mean_bz**2 + log_variance_bz.exp() - 1 - log_variance_bz)
            # The loss averages over the real steps of all windows; the divergence must count once per window.
            real_b = (~ignored_bn).sum(dim=1).clamp(min=1)
            divergence_b11 = (divergence_bz.sum(dim=1) * real_b.float().mean() / real_b)[:, None, None]
        errors_bna = (self._decode(seen, latent_bz) - actions_bna).abs()
        return errors_bna + self.config.kl_weight * divergence_b11.to(errors_bna)

    def sample(self, seen: Tensor, seeds: Sequence[int] | None) -> Tensor:
        return self._decode(seen, None)

    def _decode(self, seen_bme: Tensor, latent_bz: Tensor | None) -> Tensor:
        if latent_bz is None:
            latent_bz = seen_bme.new_zeros(len(seen_bme), self.config.latent_dim)
        latent_b1e = (self.from_latent(latent_bz) + self.latent)[:, None]
        memory_bme = self.memory(torch.cat([latent_b1e, seen_bme], dim=1))
        return self.out(self.decoder(self.queries.expand(len(seen_bme), -1, -1), memory_bme))


class LatentEncoder(nn.Module):
    """The CVAE's encoder: infers the latent (the style of a demonstrated chunk). Used only in training."""

    def __init__(self, config: ACTConfig, action_dim: int):
        super().__init__()
        width = config.dim_model
        self.summary = nn.Parameter(0.02 * torch.randn(width))
        self.action = nn.Linear(action_dim, width)
        self.layers = _build_transformer_encoder(config, config.n_vae_encoder_layers)
        self.out = nn.Linear(width, 2 * config.latent_dim)
        # Of the summary, the state and the actions.
        self.register_buffer(
            "positions", sinusoidal_embedding(torch.arange(2 + config.horizon).float(), width), persistent=False
        )

    def forward(self, actions_bna: Tensor, ignored_bn: Tensor, state_be: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the latent, each (b, z); ignored actions are masked."""
        batch = len(actions_bna)
        first = [self.summary.expand(batch, 1, -1)] + ([] if state_be is None else [state_be[:, None]])
        tokens_bme = torch.cat([*first, self.action(actions_bna)], dim=1)
        tokens_bme = tokens_bme + self.get_buffer("positions")[: tokens_bme.shape[1]]
        hidden = torch.cat([ignored_bn.new_zeros(batch, len(first)), ignored_bn], dim=1)
        summary_be = self.layers(tokens_bme, src_key_padding_mask=hidden)[:, 0]
        mean_bz, log_variance_bz = self.out(summary_be).chunk(2, dim=1)
        return mean_bz, log_variance_bz


def _build_transformer_encoder(config: ACTConfig, layers: int) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(
        config.dim_model, config.n_heads, config.dim_feedforward, config.dropout, "relu", batch_first=True
    )
    return _xavier_initialised(nn.TransformerEncoder(layer, layers, enable_nested_tensor=False))


def _xavier_initialised[Module: nn.Module](transformer: Module) -> Module:
    """With Xavier-uniform matrices, as published; PyTorch starts all layers as copies of one."""
    for parameter in transformer.parameters():
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter)
    return transformer
