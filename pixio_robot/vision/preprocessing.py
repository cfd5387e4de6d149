"""uint8 pixels to what a network eats. Only encoders call this: nobody else normalises pixels.

Shapes: b batch, h height, w width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pixio_robot.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Preprocess(nn.Module):
    """Resize (optional), scale to [0, 1] and normalise by the ImageNet mean and std."""

    mean: Tensor
    std: Tensor

    def __init__(self, resize: int | None = None) -> None:
        super().__init__()
        self.resize = resize
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width [px] after the resize."""
        return (height, width) if self.resize is None else (self.resize, self.resize)

    def forward(self, images_bhw3: Tensor) -> Tensor:
        """Images uint8 (b, h, w, 3) to float32 (b, 3, h', w')."""
        if images_bhw3.ndim != 4 or images_bhw3.shape[-1] != 3 or images_bhw3.dtype != torch.uint8:
            raise UserError(
                "An encoder takes RGB images as uint8 of shape (batch, height, width, 3), "
                f"not {str(images_bhw3.dtype).removeprefix('torch.')} of shape {tuple(images_bhw3.shape)}."
            )
        pixels_b3hw = images_bhw3.permute(0, 3, 1, 2).float()
        size = self.size(*pixels_b3hw.shape[2:])
        if size != tuple(pixels_b3hw.shape[2:]):
            pixels_b3hw = functional.interpolate(pixels_b3hw, size, mode="bicubic", antialias=True).clamp(0, 255)
        return (pixels_b3hw / 255.0 - self.mean) / self.std

    def to_uint8(self, pixels_b3hw: Tensor) -> Tensor:
        """The inverse of scaling and normalising: uint8 (b, h, w, 3)."""
        levels_b3hw = (pixels_b3hw.float() * self.std + self.mean) * 255.0
        return levels_b3hw.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
