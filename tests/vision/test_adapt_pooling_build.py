import dataclasses

import pytest
import torch

from pixio_robot.errors import UserError
from pixio_robot.types import Encoder, Features
from pixio_robot.vision import checkpointing
from pixio_robot.vision.adapt import Adaptation, AdaptConfig, adapt, lr_scales, parameter_depths
from pixio_robot.vision.build import EncoderKind, EncoderSource, build_encoder
from pixio_robot.vision.config import POOLINGS, EncoderConfig, PoolingConfig
from pixio_robot.vision.encoders.resnet import ResNetConfig, ResNetEncoder
from pixio_robot.vision.encoders.resnet18 import ResNet18Config, ResNet18Encoder
from pixio_robot.vision.pixio import PixioEncoder
from pixio_robot.vision.pooling import build_pooling
from pixio_robot.vision.preprocessing import IMAGENET_MEAN, IMAGENET_STD

CONFIG = EncoderConfig(size="tiny", patch=8, image_size=32)


def random_features(n=4, grid=(3, 5), dim=24, tokens=2):
    generator = torch.Generator().manual_seed(0)
    return Features(torch.randn(n, tokens, dim, generator=generator), torch.randn(n, *grid, dim, generator=generator))


@pytest.mark.parametrize("name", POOLINGS)
def test_every_pooling_gives_its_promised_width_and_learns(name):
    pooling = build_pooling(PoolingConfig(name=name), 24, 2, (3, 5))
    features = random_features()
    pooled = pooling(features)
    assert pooled.shape == (4, pooling.out_dim)
    torch.testing.assert_close(pooling(features.map(lambda x: x[:1])), pooled[:1], atol=1e-5, rtol=1e-5)
    if list(pooling.parameters()):
        pooled.square().sum().backward()
        assert all(p.grad is not None for p in pooling.parameters())


def test_spatial_softmax_finds_where_a_feature_is():
    pooling = build_pooling(PoolingConfig(name="spatial_softmax", keypoints=1), 1, 1, (4, 8))
    with torch.no_grad():
        pooling.score.weight.fill_(50.0)
    patches = torch.zeros(1, 4, 8, 1)
    patches[0, 1, 6] = 1.0
    x, y, strength = pooling(Features(torch.zeros(1, 1, 1), patches))[0].tolist()
    assert x == pytest.approx((6.5 / 8) * 2 - 1, abs=1e-4)
    assert y == pytest.approx((1.5 / 4) * 2 - 1, abs=1e-4)
    assert strength == pytest.approx(50.0, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_poolings_can_be_converted_with_the_model_they_are_part_of(dtype):
    for config in (
        *(PoolingConfig(name=name) for name in POOLINGS),
        PoolingConfig(name="spatial_softmax", learn_sharpness=False, project=16),
    ):
        pooling = build_pooling(config, 24, 2, (3, 5)).to(dtype)
        assert pooling(random_features().map(lambda x: x.to(dtype))).dtype == dtype


def test_the_spatial_softmax_of_robomimic_and_diffusion_policy():
    """Sharpness 1, and a linear layer with ReLU on the coordinates."""
    config = PoolingConfig(name="spatial_softmax", keypoints=5, activations=False, learn_sharpness=False, project=64)
    pooling = build_pooling(config, 24, 2, (3, 5))
    assert {name: tuple(one.shape) for name, one in pooling.named_parameters()} == {
        "score.weight": (5, 24),
        "score.bias": (5,),
        "out.0.weight": (64, 10),
        "out.0.bias": (64,),
    }
    plain = build_pooling(dataclasses.replace(config, learn_sharpness=True, project=0), 24, 2, (3, 5))
    plain.load_state_dict({**pooling.state_dict(), "log_sharpness": torch.zeros(5)}, strict=False)
    features = random_features()
    torch.testing.assert_close(pooling(features), pooling.out[0](plain(features)).relu())
    assert pooling(features).shape == (4, pooling.out_dim) == (4, 64)


@pytest.mark.parametrize(("pixels", "ends"), [("unit", (0.0, 1.0)), ("symmetric", (-1.0, 1.0))])
def test_resnet18_normalises_pixels_as_configured(pixels, ends):
    encoder = build_encoder(EncoderSource(kind=EncoderKind.RESNET18, resnet18=ResNet18Config(pixels=pixels)))
    assert isinstance(encoder, ResNet18Encoder)
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 4, 4, 3)
    assert encoder.preprocess(images)[:, 0, 0, 0].tolist() == list(ends)
    usual = ResNet18Encoder(ResNet18Config())
    assert encoder.fingerprint() != usual.fingerprint()


def test_resnet18_fingerprint_matches_older_checkpoints():
    """Caches of features and saved policies name it by its fingerprint."""
    encoder = ResNet18Encoder(ResNet18Config(resize=64))
    described = {"resize": 64, "mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    assert encoder.fingerprint() == checkpointing.fingerprint(encoder, described)


def test_resnet_is_an_encoder():
    encoder = ResNetEncoder(ResNetConfig()).eval()
    assert isinstance(encoder, Encoder)
    assert 0.2e6 < sum(p.numel() for p in encoder.parameters()) < 1e6
    images = torch.randint(0, 256, (3, 76, 100, 3), dtype=torch.uint8)
    features = encoder(images)
    assert features.patches.shape[1:3] == encoder.grid(76, 100)
    assert features.cls.shape == (3, 1, encoder.feature_dim)
    torch.testing.assert_close(encoder(images[:1]).cls, features.cls[:1], atol=1e-5, rtol=1e-4)
    assert encoder.fingerprint() == ResNetEncoder(ResNetConfig()).fingerprint()
    assert encoder.fingerprint() != ResNetEncoder(ResNetConfig(), seed=1).fingerprint()


def test_resnet_rejects_a_width_that_groups_do_not_divide():
    with pytest.raises(UserError, match="width=30"):
        ResNetConfig(width=30)


@pytest.mark.parametrize("encoder", [PixioEncoder(CONFIG), ResNetEncoder(ResNetConfig())], ids=["pixio", "resnet"])
def test_adaptation_sets_requires_grad(encoder):
    depths = parameter_depths(encoder)
    adapt(encoder, AdaptConfig(mode=Adaptation.FROZEN))
    assert not any(p.requires_grad for p in encoder.parameters())
    assert not encoder.training
    adapt(encoder, AdaptConfig(mode=Adaptation.FULL))
    assert all(p.requires_grad for p in encoder.parameters())
    adapt(encoder, AdaptConfig(mode=Adaptation.LAST_K, last_k=1))
    trained = {depths[name] for name, p in encoder.named_parameters() if p.requires_grad}
    assert trained == ({6, 7} if isinstance(encoder, PixioEncoder) else {3})


@pytest.mark.parametrize("mode", Adaptation)
def test_an_adaptation_may_be_named_by_a_text(mode):
    for text in (mode.value, mode.name):
        assert AdaptConfig(mode=text).mode is mode  # type: ignore[arg-type]
    encoder = PixioEncoder(CONFIG)
    adapt(encoder, AdaptConfig(mode="frozen"))  # type: ignore[arg-type]
    assert not any(p.requires_grad for p in encoder.parameters())


@pytest.mark.parametrize("encoder", [PixioEncoder(CONFIG), ResNetEncoder(ResNetConfig())], ids=["pixio", "resnet"])
def test_layers_nearer_the_pixels_learn_slower(encoder):
    scales = lr_scales(encoder, 0.5)
    assert scales.keys() == dict(encoder.named_parameters()).keys()
    depths = parameter_depths(encoder)
    assert all(scale == 0.5 ** (max(depths.values()) - depths[name]) for name, scale in scales.items())
    assert set(lr_scales(encoder, 1.0).values()) == {1.0}
    if isinstance(encoder, PixioEncoder):
        by_name = [scales[name] for name in ("vit.cls_pos", "vit.blocks.0.norm1.bias", "vit.norm.bias")]
        assert by_name == [0.5**7, 0.5**6, 1.0]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"mode": "frozn"}, "Unknown adapt.mode 'frozn'. Did you mean 'frozen'"),
        ({"mode": 3}, "last_k, lora"),
        ({"last_k": 0}, "last_k"),
        ({"layer_decay": 1.5}, "layer_decay"),
        ({"lora_alpha": 0.0}, "lora_alpha"),
    ],
)
def test_invalid_adaptations_are_refused(values, words):
    with pytest.raises(UserError, match=words):
        AdaptConfig(**values)


def test_build_encoder(tmp_path):
    PixioEncoder(CONFIG, seed=4).save(tmp_path / "encoder")
    pixio = build_encoder(EncoderSource(kind=EncoderKind.PIXIO, path=str(tmp_path / "encoder"), resize=64))
    assert isinstance(pixio, PixioEncoder)
    assert pixio.grid(32, 32) == (8, 8)
    random = build_encoder(EncoderSource(kind=EncoderKind.RANDOM, encoder=CONFIG, seed=4))
    assert isinstance(random, PixioEncoder)
    assert random.fingerprint() == PixioEncoder(CONFIG, seed=4).fingerprint()
    plain = build_encoder(EncoderSource(kind=EncoderKind.RESNET))
    assert isinstance(plain, ResNetEncoder)
    assert not any(encoder.training for encoder in (pixio, random, plain))
    # `resize` means the same for every kind.
    random = build_encoder(EncoderSource(kind=EncoderKind.RANDOM, encoder=CONFIG, resize=64))
    assert isinstance(random, PixioEncoder)
    assert random.grid(30, 40) == (8, 8)
    resnet = build_encoder(EncoderSource(kind=EncoderKind.RESNET, resize=64))
    assert isinstance(resnet, ResNetEncoder)
    assert resnet.config.resize == 64
    with pytest.raises(UserError, match="no encoder with encoder=none"):
        build_encoder(EncoderSource(kind=EncoderKind.NONE))
    with pytest.raises(UserError, match="needs `path`"):
        build_encoder(EncoderSource())
    assert EncoderSource(kind="Random").kind is EncoderKind.RANDOM  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"Unknown kind of encoder 'randm'\. Did you mean 'random'"):
        EncoderSource(kind="randm")  # type: ignore[arg-type]


def test_policy_encoder_has_no_drop_path(tmp_path):
    trained = PixioEncoder(dataclasses.replace(CONFIG, drop_path=0.4, recompute=True), seed=3)
    trained.save(tmp_path / "encoder")
    found = build_encoder(EncoderSource(kind=EncoderKind.PIXIO, path=str(tmp_path / "encoder")))
    assert (found.config.drop_path, found.config.recompute) == (0.0, False)
    images = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    assert torch.equal(found.train()(images).patches, trained.eval()(images).patches)
    assert found.fingerprint() == trained.fingerprint()
