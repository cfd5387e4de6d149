"""Without a GPU: what the models compute lies on their device and no step asks for a value (see test_policies.py)."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pixio_robot.vision.adapt import Adaptation, AdaptConfig, adapt
from pixio_robot.vision.config import DecoderConfig, EncoderConfig, MaskConfig
from pixio_robot.vision.distill import Distillation, StudentConfig
from pixio_robot.vision.encoders.resnet import ResNetConfig, ResNetEncoder
from pixio_robot.vision.encoders.resnet18 import ResNet18Config, ResNet18Encoder
from pixio_robot.vision.mae import Pixio
from pixio_robot.vision.pixio import PixioEncoder

SHAPE = EncoderConfig(size="tiny", patch=8, image_size=32, class_tokens=2)


def pixio() -> PixioEncoder:
    return PixioEncoder(SHAPE)


def low_rank() -> PixioEncoder:
    adapt(encoder := pixio(), AdaptConfig(mode=Adaptation.LORA))
    return encoder


def pretraining(mask: MaskConfig) -> Pixio:
    return Pixio(pixio(), DecoderConfig(width=64, depth=2, heads=2), mask)


def distillation() -> Distillation:
    return Distillation(pixio(), [StudentConfig(encoder=SHAPE, mask=MaskConfig(ratio=0.5, block=2))])


MODELS = {
    "pretraining": lambda: pretraining(MaskConfig(block=2)),
    "mixed blocks": lambda: pretraining(MaskConfig(ratio=0.75, mixed_blocks=[1, 2])),
    "distillation": distillation,
    "encoder": pixio,
    "LoRA": low_rank,
    "ResNet": lambda: ResNetEncoder(ResNetConfig()),
    "ResNet18": lambda: ResNet18Encoder(ResNet18Config()),
}


@pytest.mark.parametrize("side", [32, 64], ids=["own size", "other size"])
@pytest.mark.parametrize("name", MODELS)
def test_everything_it_computes_lies_on_its_device(name, side):
    model = MODELS[name]()
    parts = [model, model.teacher] if isinstance(model, Distillation) else [model]  # a teacher is no submodule
    with FakeTensorMode(), torch.no_grad():
        for part in parts:
            part._apply(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda:0"))
        images = torch.zeros(4, side, side, 3, dtype=torch.uint8, device="cuda:0")
        out = model.panels(images) if isinstance(model, Pixio) else model(images)
    found = [out] if isinstance(out, torch.Tensor) else vars(out).values()
    assert {value.device.type for value in found if isinstance(value, torch.Tensor)} == {"cuda"}


@pytest.mark.parametrize("name", ["ResNet", "ResNet18"])
def test_convolutions_are_channels_last_on_a_cpu_only(name):
    """Elsewhere GroupNorm has no kernel for it (torch 2.11) and would copy."""

    def formats(encoder: torch.nn.Module) -> set[tuple[bool, bool]]:
        kernels = [one for one in encoder.parameters() if one.ndim == 4 and one.shape[1] > 1 and one.shape[2] > 1]
        return {(one.is_contiguous(), one.is_contiguous(memory_format=torch.channels_last)) for one in kernels}

    policy = torch.nn.ModuleDict({"encoder": MODELS[name]()})
    assert formats(policy) == {(False, True)}
    seen = []
    hooks = [
        part.register_forward_pre_hook(lambda _, given: seen.append(given[0].is_contiguous()))
        for part in policy.modules()
        if isinstance(part, torch.nn.GroupNorm)
    ]
    images = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)
    policy["encoder"](images)
    assert not any(seen)
    with FakeTensorMode(), torch.no_grad():
        policy._apply(lambda one: torch.empty_strided(one.shape, one.stride(), dtype=one.dtype, device="cuda:0"))
        seen.clear()
        assert formats(policy) == {(True, False)}
        policy["encoder"](torch.zeros(2, 64, 64, 3, dtype=torch.uint8, device="cuda:0"))
    assert all(seen)
    assert len(seen) == len(hooks)
