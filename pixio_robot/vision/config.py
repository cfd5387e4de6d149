"""Settings of Pixio encoders, decoders, masks and feature pooling."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from pixio_robot.errors import UserError
from pixio_robot.fields import check_fields, number, one_of


class ModelSize(NamedTuple):
    width: int
    depth: int
    heads: int


# b to 5b are the published sizes (arXiv 2512.15715, table of model sizes); the others are ours, for few CPU cores.
SIZES: dict[str, ModelSize] = {
    "micro": ModelSize(128, 4, 4),
    "tiny": ModelSize(192, 6, 3),
    "small": ModelSize(384, 12, 6),
    "b": ModelSize(768, 12, 12),
    "l": ModelSize(1024, 24, 16),
    "h": ModelSize(1280, 32, 16),
    "1b": ModelSize(1536, 48, 24),
    "5b": ModelSize(3072, 48, 32),
}


@dataclasses.dataclass(kw_only=True)
class EncoderConfig:
    """A Pixio encoder. The published ones have patch 16, image_size 256 and class_tokens 8."""

    size: str = one_of("b", SIZES)
    """Model size: b, l, h, 1b and 5b are the published ones; micro, tiny and small are for training on a few cores."""
    patch: int = number(16, at_least=1)
    """Patch size [px]."""
    image_size: int = 256
    """Native image size [px], for which position embeddings are learned; they are interpolated for other sizes."""
    class_tokens: int = number(8, at_least=1)
    """Number of class tokens, which represent the whole image."""
    drop_path: float = number(0.0, at_least=0, below=1)
    """Stochastic depth rate of the last block; increases linearly from 0 at the first."""
    resize: int | None = None
    """Resize every input image to a square of this side [px]; None: keep its size."""
    recompute: bool = False
    """Activation checkpointing: recompute each block's activations in the backward pass instead of storing them. A
    third more computation for a fraction of the memory."""

    def __post_init__(self) -> None:
        check_fields(self, "encoder.")
        for name, side in (("image_size", self.image_size), ("resize", self.resize)):
            if side is not None and (side < self.patch or side % self.patch):
                raise UserError(f"encoder.{name}={side} must be a positive multiple of patch={self.patch}.")

    @property
    def width(self) -> int:
        return SIZES[self.size].width

    @property
    def depth(self) -> int:
        return SIZES[self.size].depth

    @property
    def heads(self) -> int:
        return SIZES[self.size].heads


@dataclasses.dataclass(kw_only=True)
class DecoderConfig:
    """The pixel decoder. The published one has width 512, depth 32 and 16 heads."""

    width: int = number(512, at_least=1)
    """Token dimension; a multiple of `heads`."""
    depth: int = number(32, at_least=1)
    """Number of transformer blocks."""
    heads: int = number(16, at_least=1)
    """Number of attention heads."""
    recompute: bool = False
    """Activation checkpointing, as in the encoder."""

    def __post_init__(self) -> None:
        check_fields(self, "decoder.")
        if self.width % self.heads:
            raise UserError(f"decoder.width={self.width} must be a multiple of heads={self.heads}.")


@dataclasses.dataclass(kw_only=True)
class MaskConfig:
    """Masking of whole aligned blocks of block x block patches."""

    ratio: float = number(0.75, above=0, below=1)
    """Fraction of blocks to mask; int(blocks * (1 - ratio)) stay visible."""
    block: int = number(4, at_least=1)
    """Block size [patches]."""
    mixed_blocks: list[int] = number([], at_least=1)
    """Draw the block size of each image from this list [patches]; empty: always `block`."""

    def __post_init__(self) -> None:
        check_fields(self, "mask.")

    @property
    def sides(self) -> list[int]:
        """All possible block sizes [patches]."""
        return list(self.mixed_blocks) or [self.block]


POOLINGS = ("spatial_softmax", "patch_mlp", "patch_mean", "class_mean", "class_concat", "attention")


@dataclasses.dataclass(kw_only=True)
class PoolingConfig:
    """How the features of a frame are pooled into one vector. Only the settings of the chosen pooling apply."""

    name: str = one_of("spatial_softmax", POOLINGS)
    """spatial_softmax: keypoint coordinates. patch_mlp: MLP on the flattened patch map. patch_mean, class_mean: mean
    of the patch or class tokens. class_concat: concatenated class tokens. attention: learned queries."""
    keypoints: int = number(32, at_least=1)
    """spatial_softmax: number of keypoints."""
    activations: bool = True
    """spatial_softmax: also return each keypoint's activation at its location."""
    learn_sharpness: bool = True
    """spatial_softmax: learn each keypoint's sharpness (inverse temperature); false: it stays 1."""
    project: int = number(0, at_least=0)
    """spatial_softmax: project the result to this dimension with a linear layer and ReLU; 0: no projection."""
    channels: int = number(8, at_least=1)
    """patch_mlp: channels to which each patch is reduced before flattening."""
    queries: int = number(4, at_least=1)
    """attention: number of learned queries."""
    width: int = number(128, at_least=1)
    """patch_mlp, attention: dimension of the pooled vector (attention: per query)."""

    def __post_init__(self) -> None:
        check_fields(self, "pooling.")
