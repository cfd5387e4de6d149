"""Which patches the encoder sees: whole aligned blocks are hidden, the same number in every image.

Shapes: b batch, n patches, k kept patches, c blocks.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from pixio_robot.errors import UserError
from pixio_robot.vision.config import MaskConfig


@dataclasses.dataclass
class Mask:
    """keep int64 (b, k): indices of the visible patches; hidden bool (b, n): True where hidden."""

    keep: Tensor
    hidden: Tensor


def kept_blocks(config: MaskConfig, grid: tuple[int, int]) -> int:
    """int(blocks * (1 - ratio)) (pixio.md, Masking).

    A grid that is not cut evenly into blocks is refused rather than cropped: with an uneven cut either the edge
    would always be visible or the share of hidden patches would differ between images. Raises UserError.
    """
    rows, columns = grid
    if rows % config.block or columns % config.block:
        fitting = [side for side in range(1, min(grid) + 1) if rows % side == 0 and columns % side == 0]
        raise UserError(
            f"mask block={config.block} does not divide the patch grid {rows}x{columns}; "
            f"blocks that do: {', '.join(map(str, fitting))}."
        )
    blocks = (rows // config.block) * (columns // config.block)
    kept = int(blocks * (1 - config.ratio))
    if kept == 0:
        raise UserError(
            f"mask ratio={config.ratio} hides all {blocks} blocks of a {rows}x{columns} patch grid with "
            f"block={config.block}; use a smaller ratio or smaller blocks."
        )
    return kept


@torch.compiler.disable()
def sample_mask(
    batch: int,
    grid: tuple[int, int],
    config: MaskConfig,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> Mask:
    """Draw the blocks that stay visible, independently for every image.

    Row i depends on the generator's state and on i alone, not on the batch's size. A generator that lives on
    `device` needs no copy and no synchronisation.
    """
    kept = kept_blocks(config, grid)
    rows, columns = grid[0] // config.block, grid[1] // config.block
    source = generator.device if generator is not None else device
    scores_bc = torch.rand(batch, rows * columns, generator=generator, device=source).to(device, non_blocking=True)
    ranks_bc = scores_bc.argsort(dim=1).argsort(dim=1)
    hidden_bhw = (ranks_bc >= kept).unflatten(1, (rows, columns))
    hidden_bhw = hidden_bhw.repeat_interleave(config.block, dim=1).repeat_interleave(config.block, dim=2)
    hidden_bn = hidden_bhw.flatten(1)
    # A stable sort of the flags puts the visible patches first and leaves them in reading order.
    keep_bk = hidden_bn.to(torch.uint8).argsort(dim=1, stable=True)[:, : kept * config.block**2]
    return Mask(keep_bk, hidden_bn)
