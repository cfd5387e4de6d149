"""Interpolate learned position embeddings to another patch grid.

Shapes: n native patches, d width, h rows and w columns of the wanted grid.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def interpolate_positions(positions_nd: Tensor, native: int, grid: tuple[int, int]) -> Tensor:
    """Resample embeddings of a native x native grid bicubically to (h * w, d); unchanged at native size."""
    if grid == (native, native):
        return positions_nd
    map_1dnn = positions_nd.float().T.unflatten(1, (native, native))[None]
    map_1dhw = functional.interpolate(map_1dnn, size=grid, mode="bicubic", align_corners=False)
    return map_1dhw[0].flatten(1).T.to(positions_nd.dtype)
