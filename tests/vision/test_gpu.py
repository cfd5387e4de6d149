"""The vision models on a CUDA device against the CPU."""

import pytest
import torch

from pixio_robot.vision.config import DecoderConfig, EncoderConfig, MaskConfig
from pixio_robot.vision.mae import Pixio
from pixio_robot.vision.masking import sample_mask
from pixio_robot.vision.pixio import PixioEncoder

pytestmark = pytest.mark.gpu


@pytest.fixture
def model() -> Pixio:
    encoder = PixioEncoder(EncoderConfig(size="tiny", patch=8, image_size=64, class_tokens=4))
    return Pixio(encoder, DecoderConfig(width=64, depth=2, heads=4), MaskConfig(block=2))


def images() -> torch.Tensor:
    return torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def loss_and_gradients(model, mask, autocast=False):
    model.zero_grad()
    device = mask.keep.device
    with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        reconstruct = model._compiled or model.reconstruct
        loss = reconstruct(images().to(device), mask).loss
    loss.backward()
    return loss.item(), {name: parameter.grad.to("cpu", copy=True) for name, parameter in model.named_parameters()}


def on_gpu(mask):
    return type(mask)(mask.keep.cuda(), mask.hidden.cuda())


def test_float32_on_gpu_matches_cpu(model):
    mask = sample_mask(4, (8, 8), model.mask_config, torch.Generator().manual_seed(0))
    wanted, gradients = loss_and_gradients(model, mask)
    loss, found = loss_and_gradients(model.cuda(), on_gpu(mask))
    assert loss == pytest.approx(wanted, rel=1e-3)
    for name, gradient in found.items():
        assert (gradient - gradients[name]).norm() < 2e-2 * gradients[name].norm() + 1e-6, name


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_bfloat16_stays_near(model, compiled):
    mask = sample_mask(4, (8, 8), model.mask_config, torch.Generator().manual_seed(0))
    wanted, _ = loss_and_gradients(model, mask)
    model.cuda()
    if compiled:
        model.compile()
    loss, found = loss_and_gradients(model, on_gpu(mask), autocast=True)
    assert loss == pytest.approx(wanted, rel=0.02)
    assert all(gradient.isfinite().all() for gradient in found.values())


def test_frozen_features_in_bfloat16(model):
    encoder = model.encoder.eval()
    with torch.no_grad():
        exact = encoder(images())
        with torch.autocast("cuda", torch.bfloat16):
            found = encoder.cuda()(images().cuda())
    for mine, theirs in ((found.cls, exact.cls), (found.patches, exact.patches)):
        similarity = torch.nn.functional.cosine_similarity(mine.float().cpu(), theirs, dim=-1)
        assert similarity.min() > 0.99


def test_masks_from_the_devices_generator_follow_its_seed():
    device = torch.device("cuda")
    first, again = (
        sample_mask(4, (8, 8), MaskConfig(block=2), torch.Generator(device).manual_seed(3), device) for _ in range(2)
    )
    assert first.keep.device.type == "cuda"
    assert torch.equal(first.keep, again.keep)
    assert (first.hidden.sum(dim=1) == 48).all()
