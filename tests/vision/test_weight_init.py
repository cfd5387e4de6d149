"""Weights that are drawn one tensor at a time are those that the layers would have drawn together."""

import torch
from torch import nn

from pixio_robot.vision.config import DecoderConfig, EncoderConfig, MaskConfig
from pixio_robot.vision.distill import Distillation, StudentConfig
from pixio_robot.vision.mae import Decoder, Pixio
from pixio_robot.vision.pixio import PixioEncoder
from pixio_robot.vision.vit import VisionTransformer
from pixio_robot.vision.weight_init import materialise

CONFIG = EncoderConfig(size="micro", patch=8, image_size=32, class_tokens=3, drop_path=0.2)
DECODER = DecoderConfig(width=64, depth=2, heads=4)


def drawn_together(make, tokens=(), positions=()) -> dict[str, torch.Tensor]:
    """PyTorch's own weights as the layers are made, then Pixio's in their places: one stream of random numbers."""
    torch.manual_seed(7)
    module = make()
    for child in module.modules():
        if isinstance(child, nn.Linear):
            nn.init.xavier_uniform_(child.weight)
            nn.init.zeros_(child.bias)
    for name in tokens:
        nn.init.normal_(getattr(module, name), std=0.02)
    for name in positions:
        nn.init.trunc_normal_(getattr(module, name), std=0.02)
    return module.state_dict()


def assert_equal(first: dict, second: dict) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_random_weights_match_a_single_random_stream():
    places = ("cls_pos", "patch_pos")
    expected = drawn_together(lambda: VisionTransformer(CONFIG), ["cls_token"], places)
    assert_equal(PixioEncoder(CONFIG, seed=7).vit.state_dict(), expected)
    model = Pixio(PixioEncoder(CONFIG, seed=1), DECODER, MaskConfig(block=1), seed=7)
    assert_equal(model.decoder.state_dict(), drawn_together(lambda: Decoder(CONFIG, DECODER), ["mask_token"], places))
    student = Distillation(PixioEncoder(CONFIG), [StudentConfig(name="a", encoder=CONFIG)], seed=7).students["a"]
    width = CONFIG.width

    def projection() -> nn.Module:
        return nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width))

    assert_equal(student.projection.state_dict(), drawn_together(projection))
    assert_equal(student.encoder.vit.state_dict(), expected)


def test_meta_model_is_materialised_with_random_weights():
    empty = Pixio(PixioEncoder(CONFIG, seed=None), DECODER, MaskConfig(block=1), seed=None)
    assert all(parameter.is_meta for parameter in empty.parameters())
    assert not any(buffer.is_meta for buffer in empty.buffers()), "constants are no weights"
    materialise(empty, empty.random_weights(7))
    whole = Pixio(PixioEncoder(CONFIG, seed=7), DECODER, MaskConfig(block=1), seed=7)
    assert_equal(empty.state_dict(), whole.state_dict())
    assert all(parameter.requires_grad for parameter in empty.parameters())
    images = torch.randint(0, 255, (2, 32, 32, 3), dtype=torch.uint8)
    losses = [model.eval()(images, torch.Generator().manual_seed(0)).loss for model in (empty, whole)]
    assert torch.equal(*losses)


def test_random_weights_leave_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    PixioEncoder(CONFIG, seed=5)
    assert torch.equal(torch.rand(2), expected)
