"""The pre-norm transformer block of Pixio's encoder and decoder.

Shapes: b batch, n tokens, d width, m heads, e width of a head.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

LAYER_NORM_EPS = 1e-6


class Attention(nn.Module):
    """Multi-head self-attention with one qkv projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_bnd: Tensor) -> Tensor:
        qkv_bn3me = self.qkv(x_bnd).unflatten(-1, (3, self.heads, -1))
        q_bmne, k_bmne, v_bmne = (t_bnme.transpose(1, 2) for t_bnme in qkv_bn3me.unbind(2))
        return self.proj(attend(q_bmne, k_bmne, v_bmne).transpose(1, 2).flatten(2))


def attend(q_bmne: Tensor, k_bmne: Tensor, v_bmne: Tensor) -> Tensor:
    """Softmax attention (b, m, n, e), with the fastest implementation for the device."""
    if q_bmne.device.type == "cpu" and q_bmne.dtype is torch.bfloat16 and torch.is_grad_enabled():
        # On a CPU, a training step with the fused kernel is 3.7 (72 tokens) to 1.3 times (264) slower (torch 2.11).
        weights_bmnn = (q_bmne * q_bmne.shape[-1] ** -0.5) @ k_bmne.mT
        return weights_bmnn.softmax(dim=-1) @ v_bmne
    return functional.scaled_dot_product_attention(q_bmne, k_bmne, v_bmne)


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x_bnd: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x_bnd)))


class DropPath(nn.Module):
    """Drop the residual branch of random samples and scale up the others (stochastic depth, arXiv 1603.09382)."""

    _rate: Tensor

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self._drops = rate > 0.0
        # A tensor, so that blocks that differ only in their rate share one compiled graph; on the CPU even if the model
        # is built on the meta device.
        self.register_buffer("_rate", torch.tensor(rate, device="cpu"), persistent=False)

    def forward(self, x_bnd: Tensor) -> Tensor:
        if not self._drops or not self.training:
            return x_bnd
        keep_b11 = torch.rand(len(x_bnd), 1, 1, device=x_bnd.device) >= self._rate
        return x_bnd * (keep_b11 / (1.0 - self._rate)).to(x_bnd.dtype)


class Block(nn.Module):
    def __init__(self, width: int, heads: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x_bnd: Tensor) -> Tensor:
        x_bnd = x_bnd + self.drop_path(self.attn(self.norm1(x_bnd)))
        return x_bnd + self.drop_path(self.mlp(self.norm2(x_bnd)))


def run_blocks(blocks: Iterable[nn.Module], x_bnd: Tensor, recompute: bool) -> Tensor:
    """Apply all blocks; `recompute` enables activation checkpointing."""
    if recompute and torch.is_grad_enabled():
        for block in blocks:
            x_bnd = checkpoint(block, x_bnd, use_reentrant=False)  # pyright: ignore[reportAssignmentType]
        return x_bnd
    for block in blocks:
        x_bnd = block(x_bnd)
    return x_bnd


def raise_recompile_limit() -> None:
    """Let PyTorch compile a function at least 64 times: it counts all modules that share the function."""
    dynamo = torch._dynamo.config  # pyright: ignore[reportPrivateImportUsage]
    dynamo.recompile_limit = max(dynamo.recompile_limit, 64)


def compile_blocks(blocks: Iterable[nn.Module], **options: Any) -> None:
    """Compile each block separately, in place, as a full graph. Blocks of the same shape share a graph. Options as for
    `torch.compile`."""
    # All blocks share one function with a graph for every width, with and without drop path, in training and evaluation
    # mode. Beyond PyTorch's limit of 8 it would raise an error.
    raise_recompile_limit()
    for block in blocks:
        block.forward = torch.compile(block.forward, fullgraph=True, dynamic=False, **options)
