"""Preprocess uint8 pixels for a network. Only encoders do this; no other code normalises pixels.

Shapes: b batch, h height, w width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pixio_robot.errors import UserError, unknown_name

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
INTERPOLATIONS = ("nearest", "bilinear", "bicubic")


class Preprocess(nn.Module):
    """Resize to a square (optional), scale to [0, 1] and normalise, by default with the ImageNet mean and std."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        resize: int | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        interpolation: str = "bicubic",
    ) -> None:
        super().__init__()
        if interpolation not in INTERPOLATIONS:
            raise unknown_name("interpolation", interpolation, INTERPOLATIONS)
        self.resize = resize
        self.interpolation = interpolation
        for name, value in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(value, device="cpu").view(3, 1, 1), persistent=False)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width [px] after resizing."""
        return (height, width) if self.resize is None else (self.resize, self.resize)

    def forward(self, images_bhw3: Tensor | np.ndarray) -> Tensor:
        """Images, uint8 (b, h, w, 3), to (b, 3, h', w'), float32 or the dtype that the encoder was cast to. A NumPy
        array is copied to the encoder's device."""
        if isinstance(images_bhw3, np.ndarray):
            # torch does not accept negative strides, as after mirroring or converting BGR to RGB.
            images_bhw3 = torch.tensor(np.ascontiguousarray(images_bhw3), device=self.mean.device)
        if not isinstance(images_bhw3, Tensor):
            raise UserError(
                "An encoder takes RGB images as one tensor or array, uint8 of shape (batch, height, width, 3), not as "
                f"{type(images_bhw3).__name__}; combine several images with np.stack."
            )
        if images_bhw3.ndim != 4 or images_bhw3.shape[-1] != 3 or images_bhw3.dtype != torch.uint8:
            raise UserError(
                "An encoder takes RGB images as uint8 of shape (batch, height, width, 3), "
                f"not {str(images_bhw3.dtype).removeprefix('torch.')} of shape {tuple(images_bhw3.shape)}."
            )
        pixels_b3hw = images_bhw3.permute(0, 3, 1, 2).float()
        size = self.size(*pixels_b3hw.shape[2:])
        if size != tuple(pixels_b3hw.shape[2:]):
            antialias = self.interpolation != "nearest"
            pixels_b3hw = functional.interpolate(pixels_b3hw, size, mode=self.interpolation, antialias=antialias)
            pixels_b3hw = pixels_b3hw.clamp(0, 255)  # bicubic overshoots at edges
        return ((pixels_b3hw / 255.0 - self.mean) / self.std).to(self.mean.dtype)

    def to_uint8(self, pixels_b3hw: Tensor) -> Tensor:
        """Inverse of scaling and normalising: uint8 (b, h, w, 3)."""
        levels_b3hw = (pixels_b3hw.float() * self.std + self.mean) * 255.0
        return levels_b3hw.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
