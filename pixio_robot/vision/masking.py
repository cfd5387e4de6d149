"""Block masking: whole aligned blocks of patches are masked, the same number in every image.

Shapes: b batch, n patches, k kept patches, c blocks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from pixio_robot.errors import UserError
from pixio_robot.vision.config import MaskConfig


@dataclasses.dataclass
class Mask:
    """keep int64 (b, k): indices of the visible patches; hidden bool (b, n): True where hidden."""

    keep: Tensor
    hidden: Tensor

    def rows(self, rows: slice) -> Mask:
        """The masks of a slice of the batch."""
        return Mask(self.keep[rows], self.hidden[rows])


def count_visible_patches(config: MaskConfig, grid: tuple[int, int]) -> int:
    """Number of visible patches: those of int(blocks * (1 - ratio)) whole blocks.

    Raises UserError if a block size does not divide the grid, and for mixed sizes that would leave different numbers
    of visible patches.
    """
    kept = {side: count_visible_blocks(config.ratio, side, grid) * side**2 for side in config.sides}
    if len(set(kept.values())) > 1:
        counts = ", ".join(f"{count} with {side}" for side, count in kept.items())
        raise UserError(
            f"mask mixed_blocks={list(config.mixed_blocks)} with ratio={config.ratio} leave different numbers of "
            f"patches of a {grid[0]}x{grid[1]} grid visible ({counts}), but a batch needs one number; change the ratio "
            "or the block sizes."
        )
    return next(iter(kept.values()))


def count_visible_blocks(ratio: float, side: int, grid: tuple[int, int]) -> int:
    """Number of visible blocks: int(blocks * (1 - ratio)), as in Pixio (arXiv 2512.15715).

    Raises UserError if the blocks do not divide the grid evenly: otherwise either the edge would always be visible, or
    the fraction of masked patches would differ between images.
    """
    rows, columns = grid
    if rows % side or columns % side:
        fitting = [fit for fit in range(1, min(grid) + 1) if rows % fit == 0 and columns % fit == 0]
        raise UserError(
            f"mask block={side} does not divide the patch grid {rows}x{columns}; "
            f"blocks that do: {', '.join(map(str, fitting))}."
        )
    blocks = (rows // side) * (columns // side)
    kept = int(blocks * (1 - ratio))
    if kept == 0:
        raise UserError(
            f"mask ratio={ratio} hides all {blocks} blocks of a {rows}x{columns} patch grid with "
            f"block={side}; use a smaller ratio or smaller blocks."
        )
    return kept


def sample_mask(
    batch: int,
    grid: tuple[int, int],
    config: MaskConfig,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    device: torch.device | None = None,
) -> Mask:
    """Draw the visible blocks independently for every image, and with mixed blocks also their size.

    Row i depends only on the generator's state and on i, not on the batch size. A generator on `device` avoids a copy
    and a synchronisation. With one generator per image, row i depends on its own alone; the same one may be listed for
    several rows, and gives each another mask.
    """
    kept = count_visible_patches(config, grid)
    counts = [(grid[0] // side) * (grid[1] // side) for side in config.sides]
    numbers = sum(counts) + (len(counts) > 1)
    if isinstance(generator, Sequence):
        draws = torch.stack([torch.rand(numbers, generator=one, device=one.device) for one in generator])
    else:
        source = generator.device if generator is not None else device
        draws = torch.rand(batch, numbers, generator=generator, device=source)
    draws = draws.to(device, non_blocking=True)
    maps = [
        _mask_blocks(scores_bc, config.ratio, side, grid)
        for side, scores_bc in zip(config.sides, draws[:, : sum(counts)].split(counts, dim=1), strict=True)
    ]
    hidden_bn = maps[0]
    if len(maps) > 1:
        chosen_b = (draws[:, -1] * len(maps)).long().clamp(max=len(maps) - 1)
        hidden_bn = torch.stack(maps, dim=1)[torch.arange(batch, device=chosen_b.device), chosen_b]
    # A stable sort of the flags puts the visible patches first and leaves them in reading order.
    keep_bk = hidden_bn.to(torch.uint8).argsort(dim=1, stable=True)[:, :kept]
    return Mask(keep_bk, hidden_bn)


def _mask_blocks(scores_bc: Tensor, ratio: float, side: int, grid: tuple[int, int]) -> Tensor:
    """Mask all blocks except those with the lowest scores: bool (b, n)."""
    ranks_bc = scores_bc.argsort(dim=1).argsort(dim=1)
    hidden_bc = ranks_bc >= count_visible_blocks(ratio, side, grid)
    hidden_bhw = hidden_bc.unflatten(1, (grid[0] // side, grid[1] // side))
    return hidden_bhw.repeat_interleave(side, dim=1).repeat_interleave(side, dim=2).flatten(1)
