"""Cost of a training step: FLOP of its matrix multiplications, the numerator of model FLOP utilisation (MFU).

A multiplication and an addition count as two; recomputed activations do not count (PaLM, arXiv 2204.02311, appendix B).
"""

from __future__ import annotations

from collections.abc import Sequence

from pixio_robot.vision.config import DecoderConfig, EncoderConfig, MaskConfig
from pixio_robot.vision.distill import StudentConfig
from pixio_robot.vision.masking import count_visible_patches

FORWARD_AND_BACKWARD = 3
"""Forward plus backward pass, which costs twice as much as the forward pass."""


def transformer_flop(tokens: int, width: int, depth: int) -> int:
    """Forward pass of `depth` blocks over `tokens`: projections 12 * width**2 a token, attention 2 * tokens * width."""
    return 2 * depth * tokens * (12 * width**2 + 2 * tokens * width)


def encoder_flop(encoder: EncoderConfig, visible: int) -> int:
    """Forward pass over `visible` patches of an image."""
    embedding = 2 * visible * 3 * encoder.patch**2 * encoder.width
    return embedding + transformer_flop(encoder.class_tokens + visible, encoder.width, encoder.depth)


def pretraining_flop(encoder: EncoderConfig, decoder: DecoderConfig, mask: MaskConfig, image_size: int) -> int:
    """Forward and backward pass for one square image of this size [px]."""
    grid = _grid(encoder, image_size)
    patches, q = grid[0] * grid[1], encoder.class_tokens
    visible = count_visible_patches(mask, grid)
    linears = 2 * (q + visible) * encoder.width * decoder.width + 2 * patches * decoder.width * 3 * encoder.patch**2
    blocks = transformer_flop(q + patches, decoder.width, decoder.depth)
    return FORWARD_AND_BACKWARD * (encoder_flop(encoder, visible) + linears + blocks)


def distillation_flop(teacher: EncoderConfig, students: Sequence[StudentConfig], image_size: int) -> int:
    """Teacher's forward pass and students' forward and backward passes for one square image of this size [px]."""
    grid = _grid(teacher, image_size)
    patches = grid[0] * grid[1]
    flop = encoder_flop(teacher, patches)
    for student in students:
        visible = patches if student.mask is None else count_visible_patches(student.mask, grid)
        tokens = student.encoder.class_tokens + visible
        projection = 2 * tokens * (student.encoder.width + teacher.width) * teacher.width
        flop += FORWARD_AND_BACKWARD * (encoder_flop(student.encoder, visible) + projection)
    return flop


def _grid(encoder: EncoderConfig, image_size: int) -> tuple[int, int]:
    side = (encoder.resize or image_size) // encoder.patch
    return side, side
