"""Random shifts of training images, on whatever device they are."""

from __future__ import annotations

import torch
from torch import Tensor


def random_shift(images: Tensor, pixels: int) -> Tensor:
    """Move every window of `images` (b, t, h, w, 3) by up to `pixels` in each direction, edges repeated.

    All frames of a window move together, so that motion within it stays what it was (Yarats et al. 2021, DrQ).
    """
    batch, _, height, width, _ = images.shape
    device = images.device
    down, right = torch.randint(-pixels, pixels + 1, (2, batch, 1), device=device)
    rows_bh = (torch.arange(height, device=device) + down).clamp(0, height - 1)
    columns_bw = (torch.arange(width, device=device) + right).clamp(0, width - 1)
    window_b = torch.arange(batch, device=device)[:, None, None]
    moved = images.permute(0, 2, 3, 1, 4)[window_b, rows_bh[:, :, None], columns_bw[:, None, :]]
    return moved.permute(0, 3, 1, 2, 4)
