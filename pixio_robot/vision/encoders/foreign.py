"""Common base for encoders from other libraries: uint8 images in, class tokens and a patch map out.

The whole image is resized to the square that they were trained at, with their own mean, std and filter. The centre crop
of their published evaluation is omitted, because relevant objects may be near the border.

Shapes: b batch, h/w pixels, n tokens, r/c rows and columns of the map, q class tokens, d width.
"""

from __future__ import annotations

import dataclasses
import json

import torch
from torch import Tensor, nn

from pixio_robot.errors import UserError
from pixio_robot.types import Features
from pixio_robot.vision import checkpointing
from pixio_robot.vision.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocess


@dataclasses.dataclass(kw_only=True)
class ForeignConfig:
    """A network from another library and its preprocessing."""

    architecture: str = ""
    """timm: model name; transformers: model configuration as JSON."""
    resize: int = 224
    """Resize every input image to a square of this side [px]."""
    mean: list[float] = dataclasses.field(default_factory=lambda: list(IMAGENET_MEAN))
    std: list[float] = dataclasses.field(default_factory=lambda: list(IMAGENET_STD))
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        if self.resize < 1 or len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise UserError(
                f"An encoder needs resize >= 1 and three numbers in mean and std (above 0), not resize={self.resize}, "
                f"mean={list(self.mean)}, std={list(self.std)}."
            )


class ForeignEncoder(nn.Module):
    """Base class; a subclass sets `model` and `feature_dim`, and implements `represent`."""

    model: nn.Module
    feature_dim: int

    def __init__(self, config: ForeignConfig) -> None:
        super().__init__()
        self.config = config
        self.preprocess = Preprocess(config.resize, config.mean, config.std, config.interpolation)
        self._grid: tuple[int, int] | None = None

    def represent(self, pixels_b3hw: Tensor) -> Features:
        raise NotImplementedError

    def forward(self, images_bhw3: Tensor) -> Features:
        """Features of the network's last layer for images, uint8 (b, h, w, 3)."""
        return self.represent(self.preprocess(images_bhw3))

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the patch map, the same for images of any size."""
        if self._grid is None:
            with torch.no_grad():
                patches_brcd = self._encode_blank(height, width).patches
            self._grid = (patches_brcd.shape[1], patches_brcd.shape[2])
        return self._grid

    def unused_parameters(self) -> list[nn.Parameter]:
        """Trainable parameters on which no feature depends, such as mask tokens and heads of other tasks: distributed
        training would wait for their gradients, which never come."""
        trainable = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if not trainable:
            return []
        with torch.enable_grad():
            features = self._encode_blank(self.config.resize, self.config.resize)
            everything = features.cls.sum() + features.patches.sum()
            gradients = torch.autograd.grad(everything, trainable, allow_unused=True)
        return [parameter for parameter, gradient in zip(trainable, gradients, strict=True) if gradient is None]

    def _encode_blank(self, height: int, width: int) -> Features:
        """The features of one black image, in evaluation mode."""
        device = next(self.parameters()).device
        training = self.training
        try:
            return self.eval()(torch.zeros(1, height, width, 3, dtype=torch.uint8, device=device))
        finally:
            self.train(training)

    def fingerprint(self) -> str:
        """sha256 of weights and preprocessing: equal fingerprints give equal features."""
        shape = dataclasses.asdict(self.config) | {"class": type(self.model).__name__}
        del shape["architecture"]  # its form may change with the library version; the weights identify it
        return checkpointing.fingerprint(self, json.loads(json.dumps(shape)))


def no_patch_map_error(model: str, such_as: str) -> UserError:
    """The error for a model whose features have no positions in the image. such_as: models that have a patch map."""
    return UserError(
        f"{model} does not say where in the image its features are: use a vision transformer with one grid of patches "
        f"({such_as}) or a convolutional network."
    )


def split_tokens(tokens_bnd: Tensor, grid: tuple[int, int], registers: int) -> Features:
    """Split tokens: class tokens first, then registers (dropped, as they carry no useful features), then patches in
    reading order.

    Without class tokens, the mean of the patches is used instead.
    """
    before = tokens_bnd.shape[1] - grid[0] * grid[1]
    patches_brcd = tokens_bnd[:, before:].unflatten(1, grid)
    if before - registers <= 0:
        return features_from_map(patches_brcd)
    return Features(tokens_bnd[:, : before - registers], patches_brcd)


def features_from_map(map_brcd: Tensor) -> Features:
    """Features of a network that returns only a map; its mean serves as the class token."""
    return Features(map_brcd.mean(dim=(1, 2))[:, None], map_brcd)
