"""Encoders of timm and transformers against calling the libraries themselves, on small random models saved by them."""

import dataclasses
import json
from typing import Any

import pytest
import timm
import torch
import transformers
from safetensors.torch import save_file
from torchvision.transforms.v2.functional import resize

from pixio_robot.errors import UserError
from pixio_robot.types import Encoder
from pixio_robot.vision.adapt import Adaptation, AdaptConfig, adapt, lr_scales, parameter_depths
from pixio_robot.vision.build import EncoderKind, EncoderSource, build_encoder
from pixio_robot.vision.encoders.timm_encoder import TimmConfig, TimmEncoder
from pixio_robot.vision.encoders.transformers_encoder import TransformersConfig, TransformersEncoder

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
SQUARE = {"image_size": 64, "patch_size": 16}


def images(height, width):
    return torch.randint(0, 256, (2, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def shaken(model):
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def pixels_of(frames, config):
    """What torchvision makes of the frames, as a second opinion on resize and normalisation."""
    scaled = resize(frames.permute(0, 3, 1, 2).float(), [config.resize] * 2, interpolation=3, antialias=True)
    return (scaled.clamp(0, 255) / 255 - torch.tensor(config.mean)[:, None, None]) / torch.tensor(config.std)[
        :, None, None
    ]


@pytest.mark.parametrize(
    ("name", "suffix", "side", "grid", "prefix"),
    [
        ("vit_tiny_patch16_224", ".pth", 224, (14, 14), 1),
        ("vit_tiny_patch16_224", ".safetensors", 96, (6, 6), 1),
        ("vit_small_patch16_dinov3", ".safetensors", 64, (4, 4), 5),
        ("resnet18", ".pth", 100, (4, 4), 0),
        ("convnext_atto", ".safetensors", 64, (2, 2), 0),
    ],
)
def test_timm(name, suffix, side, grid, prefix, tmp_path):
    torch.manual_seed(0)
    theirs = shaken(timm.create_model(name, num_classes=10))
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(theirs.state_dict(), path)
    source = EncoderSource(kind=EncoderKind.TIMM, name=name, path=str(path), resize=side)
    encoder = build_encoder(source).eval()
    assert isinstance(encoder, Encoder)
    assert encoder.grid(80, 120) == grid
    if side != 224 and hasattr(theirs, "set_input_size"):
        theirs.set_input_size((side, side))
    frames = images(80, 120)
    with torch.no_grad():
        features, wanted = encoder(frames), theirs.forward_features(pixels_of(frames, encoder.config))
    if prefix:
        torch.testing.assert_close(features.cls, wanted[:, :1], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(features.patches.flatten(1, 2), wanted[:, prefix:], atol=1e-4, rtol=1e-4)
    else:
        torch.testing.assert_close(features.patches, wanted.permute(0, 2, 3, 1), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(features.cls[:, 0], wanted.mean(dim=(2, 3)), atol=1e-4, rtol=1e-4)
    assert features.patches.shape == (2, *grid, encoder.feature_dim)
    rebuilt = TimmEncoder(TimmConfig(**json.loads(json.dumps(dataclasses.asdict(encoder.config)))))
    rebuilt.load_state_dict(encoder.state_dict())
    assert rebuilt.fingerprint() == encoder.fingerprint()
    torch.testing.assert_close(rebuilt.eval()(frames).patches, features.patches)


@pytest.mark.parametrize("name", ["mixer_s32_224", "crossvit_tiny_240"])
def test_a_timm_model_without_a_map_of_patches_is_refused(name):
    encoder = build_encoder(EncoderSource(kind=EncoderKind.TIMM, name=name, pretrained=False))
    with pytest.raises(UserError, match=f"timm's {name} does not say where in the image"):
        encoder.grid(64, 64)


MODELS = {
    "vit": (transformers.ViTModel, transformers.ViTConfig(**SMALL, **SQUARE), 1),
    "vit_mae": (transformers.ViTMAEModel, transformers.ViTMAEConfig(**SMALL, **SQUARE, mask_ratio=0.0), 1),
    "dinov2": (transformers.Dinov2Model, transformers.Dinov2Config(**SMALL, **SQUARE), 1),
    "dinov2_registers": (
        transformers.Dinov2WithRegistersModel,
        transformers.Dinov2WithRegistersConfig(**SMALL, **SQUARE, num_register_tokens=3),
        4,
    ),
    "dinov3": (transformers.DINOv3ViTModel, transformers.DINOv3ViTConfig(**SMALL, **SQUARE, num_register_tokens=4), 5),
    "clip": (
        transformers.CLIPModel,
        transformers.CLIPConfig(
            text_config={**SMALL, "vocab_size": 50, "eos_token_id": 1, "bos_token_id": 0},
            vision_config=SMALL | SQUARE,
        ),
        1,
    ),
    "chinese_clip": (
        transformers.ChineseCLIPVisionModel,
        transformers.ChineseCLIPVisionConfig(**SMALL, **SQUARE),
        1,
    ),
    "beit": (transformers.BeitModel, transformers.BeitConfig(**SMALL, **SQUARE), 1),
    "swin": (
        transformers.SwinModel,
        transformers.SwinConfig(
            image_size=64, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4
        ),
        0,
    ),
    "siglip": (transformers.SiglipVisionModel, transformers.SiglipVisionConfig(**SMALL, **SQUARE), 0),
    "dinov3_convnext": (
        transformers.DINOv3ConvNextModel,
        transformers.DINOv3ConvNextConfig(hidden_sizes=[8, 12, 16, 24], depths=[1, 1, 1, 1]),
        1,
    ),
    "resnet": (
        transformers.ResNetModel,
        transformers.ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic"),
        None,
    ),
}


def directory_of(name, path):
    kind, config, _ = MODELS[name]
    torch.manual_seed(0)
    model = shaken(kind(config))
    model.save_pretrained(path)
    mean, std = ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4])
    transformers.BitImageProcessor(
        size={"shortest_edge": 80}, crop_size={"height": 64, "width": 64}, resample=3, image_mean=mean, image_std=std
    ).save_pretrained(path)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_transformers(name, tmp_path):
    theirs, prefix = directory_of(name, tmp_path), MODELS[name][2]
    encoder = build_encoder(EncoderSource(kind=EncoderKind.TRANSFORMERS, path=str(tmp_path))).eval()
    assert isinstance(encoder, Encoder)
    assert (encoder.config.resize, encoder.config.mean) == (64, [0.5, 0.4, 0.3])
    frames = images(48, 90)
    pixels = pixels_of(frames, encoder.config)
    model = theirs.vision_model if name == "clip" else theirs
    noise = {"noise": torch.arange(16.0).expand(2, -1)} if name == "vit_mae" else {}
    with torch.no_grad():
        features, out = encoder(frames), model(pixels, **noise)
        wanted = out.last_hidden_state
        if "clip" in name:  # the published embedding is of normalised tokens, and so are the features
            wanted = model.post_layernorm(wanted)
            torch.testing.assert_close(features.cls[:, 0], out.pooler_output, atol=1e-4, rtol=1e-4)
        if name == "beit":
            wanted = model.pooler.layernorm(wanted)
    if prefix is None:
        torch.testing.assert_close(features.patches, wanted.permute(0, 2, 3, 1), atol=1e-4, rtol=1e-4)
    else:
        torch.testing.assert_close(features.patches.flatten(1, 2), wanted[:, prefix:], atol=1e-4, rtol=1e-4)
    if prefix:
        torch.testing.assert_close(features.cls, wanted[:, :1], atol=1e-4, rtol=1e-4)
    assert features.patches.shape == (2, *encoder.grid(48, 90), encoder.feature_dim)
    unused = {id(parameter) for parameter in encoder.unused_parameters()}
    assert not [key for key, p in encoder.named_parameters() if id(p) in unused and "norm" in key and "head" not in key]
    rebuilt = TransformersEncoder(TransformersConfig(**json.loads(json.dumps(dataclasses.asdict(encoder.config)))))
    rebuilt.load_state_dict(encoder.state_dict())
    assert rebuilt.fingerprint() == encoder.fingerprint()
    torch.testing.assert_close(rebuilt.eval()(frames).patches, features.patches)
    larger = build_encoder(EncoderSource(kind=EncoderKind.TRANSFORMERS, path=str(tmp_path), resize=96)).eval()
    assert larger(frames).patches.shape[1] == encoder.grid(48, 90)[0] * 96 // 64


def test_a_transformers_model_that_takes_patches_in_place_of_images_is_refused(tmp_path):
    config = transformers.Siglip2VisionConfig(**SMALL, patch_size=16, num_patches=16)
    transformers.Siglip2VisionModel(config).save_pretrained(tmp_path)
    transformers.Siglip2ImageProcessor().save_pretrained(tmp_path)
    source = EncoderSource(kind=EncoderKind.TRANSFORMERS, path=str(tmp_path))
    with pytest.raises(UserError, match=r"has no square size \(\{\}\); set encoder.resize"):
        build_encoder(source)
    with pytest.raises(UserError, match=r"siglip2_vision_model takes more than images .*pixel_attention_mask"):
        build_encoder(dataclasses.replace(source, resize=64))


def test_a_transformers_model_of_videos_is_refused(tmp_path):
    config = transformers.VJEPA2Config(
        **(SMALL | {"image_size": 32}), patch_size=16, crop_size=32, pred_hidden_size=12, pred_num_hidden_layers=1
    )
    transformers.VJEPA2Model(config).save_pretrained(tmp_path)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"vjepa2 takes pixel_values_videos, not images"):
        build_encoder(EncoderSource(kind=EncoderKind.TRANSFORMERS, path=str(tmp_path)))


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        (
            "eva02_tiny_patch14_224",
            AdaptConfig(mode=Adaptation.LORA),
            r"reads the weights of model\.blocks\.0\.attn\.qkv",
        ),
        ("regnetx_002", AdaptConfig(mode=Adaptation.LAST_K), r"adapt\.mode=last_k: .* not named by numbered blocks"),
    ],
)
def test_an_adaptation_that_would_not_do_what_it_says_is_refused(name, settings, words):
    encoder = build_encoder(EncoderSource(kind=EncoderKind.TIMM, name=name, pretrained=False, resize=56))
    with pytest.raises(UserError, match=words):
        adapt(encoder, settings)
    if settings.mode is Adaptation.LAST_K:
        with pytest.raises(UserError, match=r"adapt\.layer_decay=0\.7: .* Leave it at 1"):
            lr_scales(encoder, 0.7)


def test_layers_of_foreign_encoders_are_told_from_their_names(tmp_path):
    directory_of("dinov3", tmp_path)
    encoder = build_encoder(EncoderSource(kind=EncoderKind.TRANSFORMERS, path=str(tmp_path)))
    depths = parameter_depths(encoder)
    assert set(depths.values()) == {0, 1, 2, 3}
    assert depths["model.norm.weight"] == 3
    adapt(encoder, AdaptConfig(mode=Adaptation.LAST_K, last_k=1))
    assert {depths[name] for name, p in encoder.named_parameters() if p.requires_grad} == {2, 3}
    adapt(encoder, AdaptConfig(mode=Adaptation.LORA))
    encoder(images(64, 64)).patches.sum().backward()
    random = build_encoder(EncoderSource(kind=EncoderKind.TIMM, name="resnet18", pretrained=False, seed=2))
    depths = parameter_depths(random)  # its layers are numbered from 1
    assert {name.split(".")[1]: depth for name, depth in depths.items()} == {
        "conv1": 0,
        "bn1": 0,
        **{f"layer{n}": n for n in (1, 2, 3, 4)},
    }


@pytest.mark.parametrize("mode", [Adaptation.FULL, Adaptation.LAST_K])
@pytest.mark.parametrize("name", [*MODELS, "vit_base_patch16_siglip_224"])
def test_whatever_is_trained_gets_a_gradient(name, mode, tmp_path):
    """Mask tokens, norms and heads that only other tasks use are left frozen."""
    if name in MODELS:
        directory_of(name, tmp_path)
        source = EncoderSource(kind=EncoderKind.TRANSFORMERS, path=str(tmp_path))
    else:
        source = EncoderSource(kind=EncoderKind.TIMM, name=name, pretrained=False, resize=32)
    encoder = build_encoder(source).train()
    adapt(encoder, AdaptConfig(mode=mode, last_k=1))
    assert encoder.training
    features = encoder(images(32, 32))
    (features.cls.sum() + features.patches.sum()).backward()
    trained = {name: parameter.grad for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert len(trained) > 5
    assert [name for name, gradient in trained.items() if gradient is None] == []


EVIL = """
from pathlib import Path
Path(__file__).with_name("ran").touch()
class Config: pass
class Model: pass
"""


@pytest.fixture
def careless_user(monkeypatch):
    """Agrees to run a repository's code, if asked, and has no network."""

    def fail(*arguments, **_):
        raise AssertionError(arguments)

    monkeypatch.setattr("builtins.input", lambda _: "y")
    monkeypatch.setattr("socket.getaddrinfo", fail)


@pytest.mark.parametrize("entry", ["auto_map", "attn_implementation", "_attn_implementation"])
def test_code_that_a_description_names_is_never_used(entry, tmp_path, monkeypatch, careless_user):
    """`auto_map` is common in honest directories, which transformers opens with its own class."""
    monkeypatch.chdir(tmp_path)
    directory_of("vit", tmp_path / "model")
    (tmp_path / "model" / "code.py").write_text(EVIL)
    added = {"auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}.get(entry, "someones/kernel")
    config_file = tmp_path / "model" / "config.json"
    config_file.write_text(json.dumps(json.loads(config_file.read_text()) | {entry: added}))
    encoder = build_encoder(EncoderSource(kind=EncoderKind.TRANSFORMERS, path="model"))
    architecture = json.dumps(json.loads(encoder.config.architecture) | {entry: added})
    rebuilt = TransformersEncoder(dataclasses.replace(encoder.config, architecture=architecture))
    rebuilt.load_state_dict(encoder.state_dict())
    assert rebuilt.fingerprint() == encoder.fingerprint()

    unknown = {"model_type": "someones", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}
    config_file.write_text(json.dumps(unknown))
    with pytest.raises(UserError, match="transformers cannot open model as a vision model"):
        build_encoder(EncoderSource(kind=EncoderKind.TRANSFORMERS, path="model"))
    assert not (tmp_path / "model" / "ran").exists()


SMALL_VIT = {"model_type": "vit", **SMALL, **SQUARE}


def _published(name: str) -> tuple[dict[str, torch.Tensor], EncoderSource]:
    torch.manual_seed(0)
    weights = shaken(timm.create_model(name, num_classes=0)).state_dict()
    return weights, EncoderSource(kind=EncoderKind.TIMM, name=name)


def _under(prefix: str, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}{key}": value for key, value in weights.items()}


def _with_decoder(weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    """As VC-1's and MAE's."""
    return {"model": weights | {"mask_token": torch.ones(1), "decoder_embed.bias": torch.ones(2)}}


def _with_language_model(weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    """As R3M's."""
    language = {"module.lang_enc.x": torch.ones(3)}
    return {"r3m": _under("module.convnet.", weights) | language, "global_step": 9}


def _with_optimiser(weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    """A checkpoint of a training with several GPUs."""
    return {"state_dict": _under("module.", weights | {"fc.bias": torch.ones(9)}), "optimizer": {"state": {}}}


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("vit_tiny_patch16_224", _with_decoder),
        ("resnet18", _with_language_model),
        ("resnet18", _with_optimiser),
    ],
)
def test_weights_as_they_were_published_are_found(name, wrap, tmp_path):
    weights, source = _published(name)
    torch.save(wrap(weights), tmp_path / "published.pth")
    found = build_encoder(dataclasses.replace(source, path=str(tmp_path / "published.pth"))).state_dict()
    assert found.keys() == _under("model.", weights).keys()
    assert all(torch.equal(found[f"model.{key}"], value) for key, value in weights.items())


def test_published_weights_that_are_not_those_of_one_encoder_are_refused(tmp_path):
    weights, source = _published("resnet18")
    source = dataclasses.replace(source, path=str(tmp_path / "published.pth"))
    both = _under("module.base_encoder.", weights) | _under("module.momentum_encoder.", weights)  # MoCo
    torch.save({"state_dict": both}, tmp_path / "published.pth")
    with pytest.raises(
        UserError, match=r"several networks that fit \(state_dict: module\.base_encoder\., state_dict: "
    ):
        build_encoder(source)
    # A deeper network has all the layers of a shallower one.
    deeper, _ = _published("resnet34")
    torch.save({"model": deeper}, tmp_path / "published.pth")
    with pytest.raises(UserError, match=r"do not fit the model\. unexpected: layer1\.2\.bn1\.bias"):
        build_encoder(source)
    torch.save({"epoch": 3, "optimizer": {"lr": 0.1}}, tmp_path / "published.pth")
    with pytest.raises(UserError, match=r"contains no state dict: epoch, optimizer"):
        build_encoder(source)


@pytest.mark.parametrize(
    ("description", "words"),
    [
        ({"model_type": "timm_wrapper", "architecture": "hf-hub:someones/model"}, r"repository's model \(timm_wrapper"),
        ({"model_type": "timm_backbone", "backbone": "hf-hub:someones/model"}, "someones/model"),
        ({"model_type": "detr", "backbone": "someones/model", "use_timm_backbone": False}, "someones/model"),
        ({"model_type": "dpt", "backbone_config": {"model_type": "timm_backbone"}}, "use timm's"),
        (
            {
                "model_type": "vision-encoder-decoder",
                "auto_map": {"AutoModel": "model--code.Model"},
                "encoder": SMALL_VIT,
                "decoder": {"model_type": "gpt2", "n_layer": 1, "n_embd": 32, "n_head": 2},
            },
            "cannot build an encoder from .*vision-encoder-decoder.*Unrecognized configuration class",
        ),
        ({"model_type": "nothing"}, "Unrecognized model identifier"),
        (SMALL_VIT | {"num_hidden_layers": "x"}, "cannot build an encoder"),
        (SMALL_VIT | {"num_attention_heads": 0}, "cannot build an encoder"),
        ([1], "cannot build an encoder"),
    ],
)
def test_a_description_that_is_not_of_a_model_of_transformers(description, words, careless_user):
    with pytest.raises(UserError, match=words):
        TransformersEncoder(TransformersConfig(architecture=json.dumps(description)))
    with pytest.raises(UserError, match=r"cannot build an encoder from \{:"):
        TransformersEncoder(TransformersConfig(architecture="{"))


def test_what_cannot_be_opened(tmp_path):
    with pytest.raises(UserError, match="resnet18"):
        build_encoder(EncoderSource(kind=EncoderKind.TIMM, name="resnet_18"))
    with pytest.raises(UserError, match="needs `name`"):
        build_encoder(EncoderSource(kind=EncoderKind.TIMM))
    with pytest.raises(UserError, match="needs `path`"):
        build_encoder(EncoderSource(kind=EncoderKind.TRANSFORMERS))
    with pytest.raises(UserError, match="needs config"):
        build_encoder(EncoderSource(kind=EncoderKind.TRANSFORMERS, path=str(tmp_path)))
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "part.pth")
    with pytest.raises(UserError, match=r"missing: bn1\.bias"):
        build_encoder(EncoderSource(kind=EncoderKind.TIMM, name="resnet18", path=str(tmp_path / "part.pth")))
