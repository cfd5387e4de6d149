import dataclasses

import pytest
import torch

from pixio_robot.errors import UserError
from pixio_robot.vision.adapt import Adaptation, AdaptConfig, adapt
from pixio_robot.vision.config import EncoderConfig
from pixio_robot.vision.encoders.resnet import ResNetConfig, ResNetEncoder
from pixio_robot.vision.lora import merged_state_dict
from pixio_robot.vision.pixio import PixioEncoder

CONFIG = EncoderConfig(size="micro", patch=8, image_size=32)
LORA = AdaptConfig(mode=Adaptation.LORA, lora_rank=2)


def images():
    return torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def trained_a_little():
    encoder = PixioEncoder(CONFIG, seed=1)
    adapt(encoder, LORA)
    optimiser = torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        encoder(images()).cls.square().mean().backward()
        optimiser.step()
    return encoder.eval()


def test_adapters_change_nothing_until_trained_and_are_all_that_trains():
    plain, encoder = PixioEncoder(CONFIG, seed=1).eval(), PixioEncoder(CONFIG, seed=1).eval()
    adapt(encoder, LORA)
    assert isinstance(encoder, PixioEncoder)
    torch.testing.assert_close(encoder(images()).cls, plain(images()).cls)
    assert encoder.fingerprint() == plain.fingerprint()
    trained = [name for name, p in encoder.named_parameters() if p.requires_grad]
    # qkv, proj, fc1, fc2 of four blocks, two matrices each
    assert len(trained) == 4 * 4 * 2
    assert all(".blocks." in name and ".lora_" in name for name in trained)


def test_lora_leaves_base_weights_unchanged():
    plain, encoder = PixioEncoder(CONFIG, seed=1).state_dict(), trained_a_little().state_dict()
    assert torch.equal(plain["vit.norm.weight"], encoder["vit.norm.weight"])
    assert torch.equal(plain["vit.blocks.1.attn.qkv.weight"], encoder["vit.blocks.1.attn.qkv.base_layer.weight"])


def test_a_checkpoint_holds_merged_weights_and_opens_without_adapters(tmp_path):
    encoder = trained_a_little()
    encoder.save(tmp_path / "encoder")
    merged = PixioEncoder.from_pretrained(tmp_path / "encoder").eval()
    assert merged.state_dict().keys() == PixioEncoder(CONFIG).state_dict().keys()
    assert merged.fingerprint() == encoder.fingerprint() != PixioEncoder(CONFIG, seed=1).fingerprint()
    torch.testing.assert_close(merged(images()).patches, encoder(images()).patches, atol=1e-5, rtol=1e-5)


def test_what_adapters_add_is_scaled_by_alpha_over_rank():
    for alpha in (3.0, 6.0):
        encoder = PixioEncoder(CONFIG, seed=1)
        before = encoder.state_dict()["vit.blocks.0.mlp.fc1.weight"].clone()
        adapt(encoder, dataclasses.replace(LORA, lora_alpha=alpha))
        state = encoder.state_dict()
        up, down = (state[f"vit.blocks.0.mlp.fc1.lora_{name}.default.weight"] for name in "BA")
        torch.nn.init.ones_(up)
        added = merged_state_dict(encoder)["vit.blocks.0.mlp.fc1.weight"] - before
        torch.testing.assert_close(added, alpha / LORA.lora_rank * up @ down, atol=1e-5, rtol=1e-4)


def test_adapters_follow_their_seed_and_leave_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    states = []
    for seed in (0, 0, 1):
        encoder = PixioEncoder(CONFIG)
        adapt(encoder, AdaptConfig(mode=Adaptation.LORA, lora_seed=seed))
        states.append(encoder.state_dict()["vit.blocks.0.mlp.fc1.lora_A.default.weight"])
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_an_encoder_without_linear_layers_in_blocks():
    with pytest.raises(UserError, match="no linear layer in the blocks of a ResNetEncoder"):
        adapt(ResNetEncoder(ResNetConfig()), LORA)


def test_adapters_are_not_put_on_adapters():
    encoder = trained_a_little()
    with pytest.raises(UserError, match="already has adapters"):
        adapt(encoder, LORA)
