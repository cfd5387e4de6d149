"""A small convolutional encoder trained from scratch: a baseline for pretrained encoders.

Shapes: b batch, h/w pixels, r/c rows and columns of the output map (stride 8), d width.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional

from pixio_robot.errors import UserError
from pixio_robot.fields import check_fields, number
from pixio_robot.types import Features
from pixio_robot.vision import checkpointing
from pixio_robot.vision.encoders.memory_format import ConvolutionalEncoder, to_native_memory_format
from pixio_robot.vision.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocess

GROUP_CHANNELS = 16


@dataclasses.dataclass(kw_only=True)
class ResNetConfig:
    """Three stages of `blocks` residual blocks with 1, 2 and 4 times `width` channels, at strides 2, 4 and 8."""

    width: int = 32
    """Channels of the first stage; a multiple of 16."""
    blocks: int = number(1, at_least=1)
    """Residual blocks per stage."""
    resize: int | None = None
    """Resize every input image to a square of this side [px]; None: keep its size."""

    def __post_init__(self) -> None:
        check_fields(self, "encoder.resnet.")
        if self.width < GROUP_CHANNELS or self.width % GROUP_CHANNELS:
            raise UserError(f"The ResNet's width={self.width} must be a positive multiple of {GROUP_CHANNELS}.")


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(width // GROUP_CHANNELS, width)


class ResidualBlock(nn.Module):
    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, padding=1, bias=False)
        self.norm1 = _norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = _norm(width)
        self.shortcut = nn.Identity() if width_in == width and stride == 1 else nn.Conv2d(width_in, width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(out)) + self.shortcut(x))


class ResNetEncoder(ConvolutionalEncoder):
    """The class token is the mean of the feature map. Uses GroupNorm, so that outputs do not depend on the batch."""

    stride = 8

    def __init__(self, config: ResNetConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.feature_dim = 4 * config.width
        self.preprocess = Preprocess(config.resize)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.stem = nn.Conv2d(3, config.width, 5, stride=2, padding=2)
            widths = [config.width, config.width, 2 * config.width, 4 * config.width]
            self.stages = nn.ModuleList(
                nn.Sequential(
                    ResidualBlock(widths[i], widths[i + 1], stride=1 if i == 0 else 2),
                    *(ResidualBlock(widths[i + 1], widths[i + 1], stride=1) for _ in range(config.blocks - 1)),
                )
                for i in range(3)
            )
        self.convert_kernels()

    def forward(self, images_bhw3: Tensor) -> Features:
        """Features of images uint8 (b, h, w, 3): class token (b, 1, d), map (b, r, c, d)."""
        x = to_native_memory_format(self.preprocess(images_bhw3))
        x = functional.relu(self.stem(x))
        for stage in self.stages:
            x = stage(x)
        return Features(x.mean(dim=(2, 3))[:, None], x.permute(0, 2, 3, 1))

    def fingerprint(self) -> str:
        """sha256 of weights and preprocessing: equal fingerprints give equal features."""
        return checkpointing.fingerprint(
            self, dataclasses.asdict(self.config) | {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
        )
