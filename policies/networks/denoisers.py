"""Denoising networks: from a noisy action chunk, the diffusion step and the condition, they predict the clean chunk,
the noise or a velocity, as the policy trains them to.

Shapes: b batch, n steps of the chunk, a action, c condition, w width of the network. All take and return (b, n, a).
The condition is a vector (b, c), or a sequence of frames (b, t, c) for the transformer.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from pixio_robot.errors import UserError
from policies.config import DenoiserConfig
from policies.networks.embeddings import StepEmbeddingMLP
from policies.networks.transformer_denoiser import TransformerDenoiser


class FiLMBlock(nn.Module):
    """Two normalised convolutions over time with a residual; between them, the condition scales and shifts channels."""

    def __init__(self, width_in: int, width_out: int, condition_dim: int, kernel: int, groups: int):
        super().__init__()
        self.first = _conv_block(width_in, width_out, kernel, groups)
        self.second = _conv_block(width_out, width_out, kernel, groups)
        self.film = nn.Sequential(nn.Mish(), nn.Linear(condition_dim, 2 * width_out))
        self.residual = nn.Conv1d(width_in, width_out, 1) if width_in != width_out else nn.Identity()

    def forward(self, x_bwn: Tensor, condition_bc: Tensor) -> Tensor:
        scale_bw1, shift_bw1 = self.film(condition_bc)[:, :, None].chunk(2, dim=1)
        return self.second(scale_bw1 * self.first(x_bwn) + shift_bw1) + self.residual(x_bwn)


def _conv_block(width_in: int, width_out: int, kernel: int, groups: int) -> nn.Sequential:
    convolution = nn.Conv1d(width_in, width_out, kernel, padding=kernel // 2)
    return nn.Sequential(convolution, nn.GroupNorm(groups, width_out), nn.Mish())


class UNet1d(nn.Module):
    """A U-Net over the time axis of the chunk, conditioned by FiLM at every block (Chi et al., IJRR, sec. 3.1).

    As in the authors' release, the finest level has no upward blocks: its skip is unused, and the last upsampling feeds
    `out`.
    """

    def __init__(self, config: DenoiserConfig, horizon: int, action_dim: int, condition_dim: int):
        super().__init__()
        widths, kernel, groups = list(config.widths), config.kernel, config.groups
        shrink = 2 ** (len(widths) - 1)
        if horizon % shrink:
            raise UserError(
                f"horizon = {horizon} must be divisible by {shrink}, because a U-Net with widths = {widths} "
                f"halves the time axis {len(widths) - 1} times."
            )
        self.step_embedding = StepEmbeddingMLP(config.step_dim)
        condition_dim += config.step_dim

        def pair(width_in: int, width_out: int) -> nn.ModuleList:
            return nn.ModuleList(
                [
                    FiLMBlock(width_in, width_out, condition_dim, kernel, groups),
                    FiLMBlock(width_out, width_out, condition_dim, kernel, groups),
                ]
            )

        steps_down = list(zip([action_dim, *widths], widths, strict=False))
        self.down = nn.ModuleList(pair(narrow, wide) for narrow, wide in steps_down)
        self.shrink = nn.ModuleList(nn.Conv1d(width, width, 3, stride=2, padding=1) for width in widths[:-1])
        self.middle = pair(widths[-1], widths[-1])
        # The input of each level is the output of the level below, concatenated with the skip of its own level.
        self.up = nn.ModuleList(pair(2 * wide, narrow) for narrow, wide in list(itertools.pairwise(widths))[::-1])
        self.grow = nn.ModuleList(nn.ConvTranspose1d(width, width, 4, stride=2, padding=1) for width in widths[-2::-1])
        self.out = nn.Sequential(_conv_block(widths[0], widths[0], kernel, groups), nn.Conv1d(widths[0], action_dim, 1))

    def forward(self, noisy_bna: Tensor, steps_b: Tensor, condition_bc: Tensor) -> Tensor:
        condition_bc = torch.cat([self.step_embedding(steps_b), condition_bc], dim=-1)
        x = noisy_bna.transpose(1, 2)
        skips = []
        for level, blocks in enumerate(self.down):
            x = self._apply_blocks(blocks, x, condition_bc)
            skips.append(x)
            if level < len(self.shrink):
                x = self.shrink[level](x)
        x = self._apply_blocks(self.middle, x, condition_bc)
        for blocks, grow in zip(self.up, self.grow, strict=True):
            x = grow(self._apply_blocks(blocks, torch.cat([x, skips.pop()], dim=1), condition_bc))
        return self.out(x).transpose(1, 2)

    @staticmethod
    def _apply_blocks(blocks: nn.Module, x: Tensor, condition_bc: Tensor) -> Tensor:
        for block in blocks.children():
            x = block(x, condition_bc)
        return x


class FiLMMLP(nn.Module):
    """Residual MLP over the flattened chunk, modulated by condition and step: for small chunks and CPUs."""

    def __init__(self, config: DenoiserConfig, horizon: int, action_dim: int, condition_dim: int):
        super().__init__()
        width = config.widths[0]
        self.step_embedding = StepEmbeddingMLP(config.step_dim)
        self.condition = nn.Sequential(nn.Linear(condition_dim + config.step_dim, width), nn.Mish())
        self.stem = nn.Linear(horizon * action_dim, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in config.widths)
        self.films = nn.ModuleList(nn.Linear(width, 2 * width) for _ in config.widths)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.Mish(), nn.Linear(2 * width, width)) for _ in config.widths
        )
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, horizon * action_dim))

    def forward(self, noisy_bna: Tensor, steps_b: Tensor, condition_bc: Tensor) -> Tensor:
        condition_bw = self.condition(torch.cat([self.step_embedding(steps_b), condition_bc], dim=-1))
        x_bw = self.stem(noisy_bna.flatten(1))
        for norm, film, block in zip(self.norms, self.films, self.blocks, strict=True):
            scale_bw, shift_bw = film(condition_bw).chunk(2, dim=-1)
            x_bw = x_bw + block((1 + scale_bw) * norm(x_bw) + shift_bw)
        return self.out(x_bw).view_as(noisy_bna)


DENOISERS: dict[str, type[nn.Module]] = {"unet": UNet1d, "mlp": FiLMMLP, "transformer": TransformerDenoiser}


def build_denoiser(config: DenoiserConfig, horizon: int, action_dim: int, condition_dim: int) -> nn.Module:
    """`condition_dim`: dimension of the condition, or of one frame of it."""
    return DENOISERS[config.name](config, horizon, action_dim, condition_dim)
