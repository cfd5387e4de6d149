"""Settings of Pixio encoders, decoders, masks and feature pooling."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from pixio_robot.choice import one_of
from pixio_robot.errors import UserError, unknown_name


class Size(NamedTuple):
    width: int
    depth: int
    heads: int


# b to 5b are the published sizes (arXiv 2512.15715, table of model sizes); the others are ours, for few CPU cores.
SIZES: dict[str, Size] = {
    "micro": Size(128, 4, 4),
    "tiny": Size(192, 6, 3),
    "small": Size(384, 12, 6),
    "b": Size(768, 12, 12),
    "l": Size(1024, 24, 16),
    "h": Size(1280, 32, 16),
    "1b": Size(1536, 48, 24),
    "5b": Size(3072, 48, 32),
}


@dataclasses.dataclass(kw_only=True)
class EncoderConfig:
    """A Pixio encoder. The published ones have patch 16, image_size 256 and class_tokens 8."""

    size: str = one_of("b", SIZES)
    """Model size: b, l, h, 1b and 5b are the published ones; micro, tiny and small are for training on a few cores."""
    patch: int = 16
    """Patch size [px]."""
    image_size: int = 256
    """Native image size [px], for which position embeddings are learned; they are interpolated for other sizes."""
    class_tokens: int = 8
    """Number of class tokens, which represent the whole image."""
    drop_path: float = 0.0
    """Stochastic depth rate of the last block; increases linearly from 0 at the first."""
    resize: int | None = None
    """Resize every input image to a square of this side [px]; None: keep its size."""
    recompute: bool = False
    """Activation checkpointing: recompute each block's activations in the backward pass instead of storing them. A
    third more computation for a fraction of the memory."""

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise unknown_name("encoder size", self.size, SIZES)
        if self.patch < 1 or self.class_tokens < 1:
            raise UserError(
                f"An encoder needs patch >= 1 and class_tokens >= 1, but got patch={self.patch}, "
                f"class_tokens={self.class_tokens}."
            )
        if not 0.0 <= self.drop_path < 1.0:
            raise UserError(f"drop_path={self.drop_path} must lie in [0, 1).")
        for name, side in (("image_size", self.image_size), ("resize", self.resize)):
            if side is not None and (side < self.patch or side % self.patch):
                raise UserError(f"{name}={side} must be a positive multiple of patch={self.patch}.")

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

    width: int = 512
    """Token dimension; a multiple of `heads`."""
    depth: int = 32
    """Number of transformer blocks."""
    heads: int = 16
    """Number of attention heads."""
    recompute: bool = False
    """Activation checkpointing, as in the encoder."""

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.heads) < 1 or self.width % self.heads:
            raise UserError(
                f"The decoder's width={self.width} must be a multiple of heads={self.heads}, "
                f"and depth={self.depth} at least 1."
            )


@dataclasses.dataclass(kw_only=True)
class MaskConfig:
    """Masking of whole aligned blocks of block x block patches."""

    ratio: float = 0.75
    """Fraction of blocks to mask; int(blocks * (1 - ratio)) stay visible."""
    block: int = 4
    """Block size [patches]."""
    mixed_blocks: list[int] = dataclasses.field(default_factory=list)
    """Draw the block size of each image from this list [patches]; empty: always `block`."""

    def __post_init__(self) -> None:
        if not 0.0 < self.ratio < 1.0:
            raise UserError(f"mask ratio={self.ratio} must lie between 0 and 1.")
        if self.block < 1:
            raise UserError(f"mask block={self.block} must be at least 1 patch.")
        if any(side < 1 for side in self.mixed_blocks):
            raise UserError(f"mask mixed_blocks={list(self.mixed_blocks)} must be at least 1 patch each.")

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
    keypoints: int = 32
    """spatial_softmax: number of keypoints."""
    activations: bool = True
    """spatial_softmax: also return each keypoint's activation at its location."""
    channels: int = 8
    """patch_mlp: channels to which each patch is reduced before flattening."""
    queries: int = 4
    """attention: number of learned queries."""
    width: int = 128
    """patch_mlp, attention: dimension of the pooled vector (attention: per query)."""

    def __post_init__(self) -> None:
        if self.name not in POOLINGS:
            raise unknown_name("pooling", self.name, POOLINGS)
        for name in ("keypoints", "channels", "queries", "width"):
            if getattr(self, name) < 1:
                raise UserError(f"pooling {name}={getattr(self, name)} must be at least 1.")


def from_json[T](cls: type[T], value: Any, where: str) -> T:
    """Build a flat config dataclass from a checkpoint's JSON. Raises UserError for unknown keys and wrong types."""
    if not isinstance(value, dict):
        raise UserError(f"{where} holds no {cls.__name__}.")
    known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in value:
        if key not in known:
            raise UserError(f"{where}: {unknown_name(f'{cls.__name__} key', key, known)}")
    try:
        return cls(**value)
    except TypeError as error:
        raise UserError(f"{where}: a value of {cls.__name__} has the wrong type ({error}).") from error
