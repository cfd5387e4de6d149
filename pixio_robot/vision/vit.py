"""The vision transformer: class tokens and (some) patches in, tokens out.

Shapes: b batch, h/w pixels, n patches, k kept patches, q class tokens, d width, p pixels of a patch times 3.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn

from pixio_robot.vision.config import EncoderConfig
from pixio_robot.vision.layers import LAYER_NORM_EPS, Block, run_blocks
from pixio_robot.vision.positions import interpolate_positions
from pixio_robot.vision.weight_init import (
    make_generator,
    random_layer_weights,
    random_position_embeddings,
    random_token,
)


def patchify(pixels_b3hw: Tensor, patch: int) -> Tensor:
    """(b, n, p) patches in reading order; inside a patch the order is channel, row, column."""
    tiles = pixels_b3hw.unfold(2, patch, patch).unfold(3, patch, patch)
    return tiles.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


def unpatchify(patches_bnp: Tensor, patch: int, grid: tuple[int, int]) -> Tensor:
    """Inverse of `patchify`."""
    tiles = patches_bnp.unflatten(1, grid).unflatten(3, (3, patch, patch))
    return tiles.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def gather_tokens(tokens_bnd: Tensor, index_bk: Tensor) -> Tensor:
    """The tokens (b, k, d) at the given indices of each image."""
    return tokens_bnd.gather(1, index_bk[..., None].expand(-1, -1, tokens_bnd.shape[-1]))


class VisionTransformer(nn.Module):
    """A vision transformer with several class tokens. Its weights start uninitialised: load `random_weights` or
    a file."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.native = config.image_size // config.patch
        self.recompute = config.recompute
        width, depth = config.width, config.depth
        self.patch_embed = nn.Linear(3 * config.patch**2, width)
        self.cls_token = nn.Parameter(torch.empty(config.class_tokens, width))
        self.cls_pos = nn.Parameter(torch.empty(config.class_tokens, width))
        self.patch_pos = nn.Parameter(torch.empty(self.native**2, width))
        rates = [config.drop_path * i / max(depth - 1, 1) for i in range(depth)]
        self.blocks = nn.ModuleList(Block(width, config.heads, rate) for rate in rates)
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)

    def random_weights(self, seed: int) -> Iterator[tuple[str, Tensor]]:
        """Weights drawn from `seed`, name by name."""
        generator = make_generator(seed)
        yield from random_layer_weights(self, generator)
        yield "cls_token", random_token(self.cls_token, generator)
        for name in ("cls_pos", "patch_pos"):
            yield name, random_position_embeddings(getattr(self, name), generator)

    def embed(self, patches_bnp: Tensor, grid: tuple[int, int], keep_bk: Tensor | None) -> Tensor:
        """Embed class tokens, then the kept patches (all if `keep_bk` is None) with positions: (b, q + k, d)."""
        batch = patches_bnp.shape[0]  # `len` would make the size a constant in an exported graph
        positions_bnd = interpolate_positions(self.patch_pos, self.native, grid).expand(batch, -1, -1)
        if keep_bk is not None:
            patches_bnp, positions_bnd = gather_tokens(patches_bnp, keep_bk), gather_tokens(positions_bnd, keep_bk)
        x_bkd = self.patch_embed(patches_bnp)
        cls_bqd = (self.cls_token + self.cls_pos).expand(batch, -1, -1)
        return torch.cat([cls_bqd.to(x_bkd.dtype), x_bkd + positions_bnd.to(x_bkd.dtype)], dim=1)

    def forward(self, patches_bnp: Tensor, grid: tuple[int, int], keep_bk: Tensor | None = None) -> Tensor:
        """Tokens after the final norm (b, q + k, d); patch tokens follow the order of `keep_bk`."""
        x_bnd = self.embed(patches_bnp, grid, keep_bk)
        return self.norm(run_blocks(self.blocks, x_bnd, self.recompute))

    def intermediate(
        self, patches_bnp: Tensor, grid: tuple[int, int], blocks: Collection[int], norm: bool
    ) -> dict[int, Tensor]:
        """Output tokens (b, q + n, d) of each chosen block, after the final norm if `norm`."""
        x_bnd = self.embed(patches_bnp, grid, None)
        outputs = {}
        for i, block in enumerate(self.blocks):
            x_bnd = block(x_bnd)
            if i in blocks:
                outputs[i] = self.norm(x_bnd) if norm else x_bnd
            if len(outputs) == len(set(blocks)):
                break
        return outputs
