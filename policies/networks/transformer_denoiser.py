"""The denoiser of the transformer diffusion policy (Chi et al., IJRR, sec. 3.1): actions attend to the observation.

Shapes: b batch, n steps of the chunk, a action, t observed frames, c features per frame, w width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from policies.config import DenoiserConfig
from policies.networks.embeddings import SinusoidalStepEmbedding, sinusoidal_embedding


class TransformerDenoiser(nn.Module):
    """A decoder over the noisy actions, causal in time; its memory is the diffusion step and the frames.

    A frame's position embedding is the sinusoid of its age, so any number of frames is possible. Memory is embedded by
    a small MLP without attention, as published. Actions may attend to every frame, so cross-attention has no mask.
    """

    def __init__(self, config: DenoiserConfig, horizon: int, action_dim: int, condition_dim: int):
        super().__init__()
        width = config.widths[0]
        self.step = SinusoidalStepEmbedding(width)
        self.frame = nn.Linear(condition_dim, width)
        self.memory = nn.Sequential(nn.Linear(width, 4 * width), nn.Mish(), nn.Linear(4 * width, width))
        self.action = nn.Linear(action_dim, width)
        self.action_positions = nn.Parameter(0.02 * torch.randn(horizon, width))
        layer = nn.TransformerDecoderLayer(
            width, config.heads, 4 * width, config.dropout, "gelu", batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, len(config.widths), norm=nn.LayerNorm(width))
        self.out = nn.Linear(width, action_dim)
        self.register_buffer("causal", _causal_mask(horizon), persistent=False)
        self.apply(_initialise_weights)

    def forward(self, noisy_bna: Tensor, steps_b: Tensor, condition_btc: Tensor) -> Tensor:
        frames_btw = self.frame(condition_btc)
        ages_t = torch.arange(frames_btw.shape[1] - 1, -1, -1, device=frames_btw.device).float()
        frames_btw = frames_btw + sinusoidal_embedding(ages_t, frames_btw.shape[2]).to(frames_btw)
        step_b1w = self.step(steps_b)[:, None]
        memory_bmw = self.memory(torch.cat([step_b1w.to(frames_btw), frames_btw], dim=1))
        actions_bnw = self.action(noisy_bna) + self.action_positions
        mask = self.get_buffer("causal")
        return self.out(self.decoder(actions_bnw, memory_bmw, tgt_mask=mask, tgt_is_causal=True))


def _causal_mask(horizon: int) -> Tensor:
    return torch.ones(horizon, horizon, dtype=torch.bool).triu(1)


def _initialise_weights(module: nn.Module) -> None:
    """Normal weights with standard deviation .02 and zero biases, as in GPT-2 and the published policy."""
    if isinstance(module, nn.MultiheadAttention):
        nn.init.normal_(module.in_proj_weight, std=0.02)
        nn.init.zeros_(module.in_proj_bias)
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
