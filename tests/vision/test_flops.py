"""The arithmetic against PyTorch's own counter."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pixio_robot.vision.config import DecoderConfig, EncoderConfig, MaskConfig
from pixio_robot.vision.distill import Distillation, StudentConfig
from pixio_robot.vision.flops import distillation_flop, pretraining_flop
from pixio_robot.vision.mae import Pixio
from pixio_robot.vision.pixio import PixioEncoder

ENCODER = EncoderConfig(size="tiny", patch=8, image_size=64)
IMAGES = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)


def counted(model: torch.nn.Module) -> float:
    """FLOP an image of a forward and backward pass; the images themselves need no gradient."""
    # It does not know the CPU's fused attention.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(IMAGES, torch.Generator().manual_seed(0)).loss.backward()
    return counter.get_total_flops() / len(IMAGES)


def test_pretraining():
    decoder, mask = DecoderConfig(width=64, depth=3, heads=4), MaskConfig(block=2)
    # What the counter leaves out: no gradient flows back into the pixels.
    expected = pretraining_flop(ENCODER, decoder, mask, 64)
    assert counted(Pixio(PixioEncoder(ENCODER), decoder, mask)) == pytest.approx(expected, rel=0.02)


def test_distillation():
    students = [
        StudentConfig(encoder=ENCODER),
        StudentConfig(name="masked", encoder=ENCODER, mask=MaskConfig(ratio=0.5, block=4)),
    ]
    teacher = PixioEncoder(EncoderConfig(size="small", patch=8, image_size=64))
    expected = distillation_flop(teacher.config, students, 64)
    assert counted(Distillation(teacher, students)) == pytest.approx(expected, rel=0.02)


def test_the_published_cost():
    """arXiv 2512.15715: 449 GFLOP an image for H."""
    encoder = EncoderConfig(size="h")
    assert pretraining_flop(encoder, DecoderConfig(), MaskConfig(), 256) == pytest.approx(449e9, rel=0.02)
