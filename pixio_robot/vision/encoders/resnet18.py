"""ResNet18 with GroupNorm, trained from scratch: the image encoder of diffusion policy.

GroupNorm replaces BatchNorm, whose running statistics do not work with averaged weights (Chi et al., IJRR,
sec. 3.2); sixteen channels per group. robomimic's ResNet18, also trained from scratch, keeps BatchNorm.

Shapes: b batch, h/w pixels, r/c rows and columns of the map (stride 32), d width.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from pixio_robot.fields import check_fields, one_of
from pixio_robot.types import Features
from pixio_robot.vision import checkpointing
from pixio_robot.vision.encoders.memory_format import ConvolutionalEncoder, to_native_memory_format
from pixio_robot.vision.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocess

GROUP_CHANNELS = 16
PIXELS = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "unit": ((0.0,) * 3, (1.0,) * 3),
    "symmetric": ((0.5,) * 3, (0.5,) * 3),
}
"""Mean and std by which pixels in [0, 1] are normalised."""


@dataclasses.dataclass(kw_only=True)
class ResNet18Config:
    resize: int | None = None
    """Resize every input image to a square of this side [px]; None: keep its size."""
    pixels: str = one_of("imagenet", PIXELS)
    """Normalisation of pixels: imagenet (mean and std of ImageNet), unit ([0, 1], as in robomimic) or symmetric
    ([-1, 1], as in diffusion policy)."""

    def __post_init__(self) -> None:
        check_fields(self, "encoder.resnet18.")


class ResNet18Encoder(ConvolutionalEncoder):
    """torchvision's ResNet18 up to its last feature map; the class token is the mean of the map."""

    feature_dim = 512
    stride = 32

    def __init__(self, config: ResNet18Config, seed: int = 0) -> None:
        from torchvision.models import resnet18

        super().__init__()
        self.config = config
        self.preprocess = Preprocess(config.resize, *PIXELS[config.pixels])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            classifier = resnet18(weights=None, norm_layer=lambda width: nn.GroupNorm(width // GROUP_CHANNELS, width))
        # Everything except global average pooling and the classifier.
        self.layers = nn.Sequential(*list(classifier.children())[:-2])
        self.convert_kernels()

    def forward(self, images_bhw3: Tensor) -> Features:
        """Features of images uint8 (b, h, w, 3): class token (b, 1, d), map (b, r, c, d)."""
        x_bdrc = self.layers(to_native_memory_format(self.preprocess(images_bhw3)))
        return Features(x_bdrc.mean(dim=(2, 3))[:, None], x_bdrc.permute(0, 2, 3, 1))

    def fingerprint(self) -> str:
        """sha256 of weights and preprocessing: equal fingerprints give equal features."""
        mean, std = PIXELS[self.config.pixels]
        return checkpointing.fingerprint(self, {"resize": self.config.resize, "mean": mean, "std": std})
