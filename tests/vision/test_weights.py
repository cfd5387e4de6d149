"""Official files and Hugging Face directories; against transformers itself where it is installed."""

import dataclasses
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from pixio_robot.errors import UserError
from pixio_robot.files import read_json, write_json
from pixio_robot.vision.build import EncoderSource, build_encoder
from pixio_robot.vision.config import EncoderConfig
from pixio_robot.vision.pixio import PixioEncoder
from pixio_robot.vision.weights.formats import WeightFormat, save_encoder_as
from pixio_robot.vision.weights.huggingface import read_huggingface, save_huggingface
from pixio_robot.vision.weights.official import from_official, read_official, to_official

CONFIG = EncoderConfig(size="tiny", patch=16, image_size=256)


def images(height, width):
    return torch.randint(
        0, 256, (2, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(height)
    )


@pytest.fixture
def encoder():
    encoder = PixioEncoder(CONFIG, seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():  # away from zero biases and unit norms, so that a swapped pair of keys shows
        for parameter in encoder.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return encoder


def test_official_names_and_shapes(encoder):
    weights = to_official(encoder)
    assert weights["cls_token"].shape == (1, 8, 192)
    assert weights["pos_embed"].shape == (1, 8 + 256, 192)
    assert weights["patch_embed.proj.weight"].shape == (192, 3, 16, 16)
    assert weights["blocks.5.attn.qkv.weight"].shape == (576, 192)
    assert {key.split(".")[0] for key in weights} == {"cls_token", "pos_embed", "patch_embed", "blocks", "norm"}


def test_the_patch_projection_is_the_convolution_it_was(encoder):
    pixels = encoder.preprocess(images(256, 256))
    weights = to_official(encoder)
    conv = torch.nn.functional.conv2d(
        pixels, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], stride=16
    )
    ours = encoder.vit.patch_embed(encoder.patches(images(256, 256))[0])
    torch.testing.assert_close(ours, conv.flatten(2).mT, atol=1e-4, rtol=1e-4)


def test_official_files_come_back_the_same(encoder, tmp_path):
    torch.save(to_official(encoder), tmp_path / "pixio.pth")
    loaded = read_official(tmp_path / "pixio.pth").build()
    assert loaded.config == CONFIG
    assert loaded.fingerprint() == encoder.fingerprint()


def test_huggingface_directories_come_back_the_same(encoder, tmp_path):
    save_huggingface(encoder, tmp_path / "hf")
    assert read_huggingface(tmp_path / "hf").build().fingerprint() == encoder.fingerprint()


def test_an_official_file_is_the_same_whatever_its_name(encoder, tmp_path):
    for name in ("a.pth", ".hidden"):
        save_encoder_as(encoder, tmp_path / name, WeightFormat.OFFICIAL)
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / ".hidden").read_bytes()


@pytest.mark.parametrize("kind", ["ours", "huggingface", "official"])
def test_from_pretrained_opens_every_format(kind, encoder, tmp_path):
    save_encoder_as(encoder, tmp_path / "weights", WeightFormat(kind))
    assert PixioEncoder.from_pretrained(tmp_path / "weights").fingerprint() == encoder.fingerprint()
    resized = PixioEncoder.from_pretrained(str(tmp_path / "weights"), resize=128)
    assert resized.grid(90, 70) == (8, 8)
    built = build_encoder(EncoderSource(path=str(tmp_path / "weights"), resize=128))
    assert built.fingerprint() == resized.fingerprint()


def test_from_pretrained_takes_a_hub_name(encoder, tmp_path, monkeypatch):
    """From a cache laid out as the hub's own library does, without a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model, revision = tmp_path / "hub" / "models--someone--pixio-vitb16", "0" * 40
    save_huggingface(encoder, model / "snapshots" / revision)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(revision)
    assert PixioEncoder.from_pretrained("someone/pixio-vitb16").fingerprint() == encoder.fingerprint()
    named = build_encoder(EncoderSource(name="someone/pixio-vitb16"))
    assert named.fingerprint() == encoder.fingerprint()
    with pytest.raises(
        UserError, match="nothing at the path runs/typo, and downloading it from the Hugging Face hub failed"
    ):
        PixioEncoder.from_pretrained("runs/typo")


class Trap:
    def __reduce__(self):
        return (print, ("executed",))


def test_training_state_is_refused_as_an_encoder(encoder, tmp_path):
    run = tmp_path / "run"
    encoder.save(run / "model")
    state = run / "checkpoints" / "step_00000010"
    state.mkdir(parents=True)
    write_json(state / "trainer.json", {})
    (run / "checkpoints" / "latest").write_text(state.name)
    for path in (run / "checkpoints", run / "checkpoints" / "latest", state):
        with pytest.raises(UserError, match=f"{path} is a training state for resuming, .* use {run / 'model'}, which"):
            PixioEncoder.from_pretrained(path)


def test_a_distillation_has_several_encoders(encoder, tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "latest").touch()
    names = [run / "model" / name for name in ("small", "tiny")]
    for name in names:
        encoder.save(name)
    for path in (run, run / "model"):
        with pytest.raises(UserError, match=f"contains several encoders; choose one: {names[0]}, {names[1]}"):
            PixioEncoder.from_pretrained(path)
    with pytest.raises(UserError, match=f"use {names[0]} or {names[1]}, which"):
        PixioEncoder.from_pretrained(run / "checkpoints" / "latest")
    assert PixioEncoder.from_pretrained(names[1]).fingerprint() == encoder.fingerprint()


def test_a_pickle_is_not_executed(tmp_path, capsys):
    (tmp_path / "trap.pth").write_bytes(pickle.dumps({"cls_token": Trap()}, protocol=2))
    with pytest.raises(UserError, match="not a plain PyTorch state dict"):
        read_official(tmp_path / "trap.pth")
    assert "executed" not in capsys.readouterr().out


def test_official_weights_that_do_not_fit(encoder, tmp_path):
    weights = to_official(encoder)
    with pytest.raises(UserError, match=r"missing: vit.norm.bias; unexpected: vit.decoder"):
        from_official({k: v for k, v in weights.items() if k != "norm.bias"} | {"decoder": torch.zeros(1)}, "file")
    with pytest.raises(UserError, match=r"Missing: cls_token, pos_embed.*; it has: module\.cls_token"):
        from_official({"module.cls_token": torch.zeros(1)}, "file")
    torch.save({"model": weights, "epoch": 3}, tmp_path / "wrapped.pth")
    with pytest.raises(UserError, match=r"it also has: model \(dict\), epoch \(int\)"):
        read_official(tmp_path / "wrapped.pth")
    with pytest.raises(UserError, match="not a known size"):
        from_official({k: v for k, v in weights.items() if not k.startswith("blocks.5.")}, "file")
    with pytest.raises(UserError, match="square number"):
        from_official(weights | {"pos_embed": torch.zeros(1, 100, 192)}, "file")
    (tmp_path / "broken.pth").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(UserError, match=r"broken\.pth"):
        read_official(tmp_path / "broken.pth")
    for content in (b"hello", b"", b"\x80\x02}q\x00."):
        (tmp_path / "notes.txt").write_bytes(content)
        with pytest.raises(UserError, match=r"notes\.txt"):
            read_official(tmp_path / "notes.txt")
    with pytest.raises(UserError, match="no weights file"):
        read_official(tmp_path / "nowhere.pth")


def test_huggingface_directories_that_do_not_fit(encoder, tmp_path):
    path = tmp_path / "hf"
    save_huggingface(encoder, path)
    weights = load_file(path / "model.safetensors")
    spoilt = {k: v for k, v in weights.items() if not k.endswith("0.attention.attention.key.bias")}
    save_file(spoilt | {"head.weight": torch.zeros(1)}, path / "model.safetensors")
    with pytest.raises(UserError, match=r"missing: layers\.0\.attention\.k_proj\.bias; unexpected: head\.weight"):
        read_huggingface(path)
    config = read_json(path / "config.json")
    for change, words in (
        ({"model_type": "vit"}, "'vit'"),
        ({"mlp_ratio": 2}, "mlp_ratio=2"),
        ({"layer_norm_eps": 1e-12}, "layer_norm_eps=1e-12"),
    ):
        write_json(path / "config.json", config | change)
        with pytest.raises(UserError, match=words):
            read_huggingface(path)
    save_file(weights, path / "model.safetensors")
    write_json(path / "config.json", config | {"num_attention_heads": 6})
    with pytest.raises(UserError, match="num_attention_heads=6"):
        read_huggingface(path)
    del config["num_attention_heads"]
    write_json(path / "config.json", config)
    with pytest.raises(UserError, match="num_attention_heads=16"):  # the default of transformers
        read_huggingface(path)
    with pytest.raises(UserError, match="no model directory"):
        read_huggingface(tmp_path / "nowhere")


def test_the_image_processor_resizes_as_the_encoder_does(tmp_path):
    for resize, side in ((None, 256), (128, 128)):
        path = tmp_path / str(resize)
        save_huggingface(PixioEncoder(dataclasses.replace(CONFIG, resize=resize), seed=1), path)
        assert read_json(path / "preprocessor_config.json")["size"] == {"height": side, "width": side}


def assert_same_outputs(encoder, theirs):
    for height, width in ((256, 256), (192, 320)):
        with torch.no_grad():
            features = encoder(images(height, width))
            output = theirs(encoder.preprocess(images(height, width))).last_hidden_state
        torch.testing.assert_close(output[:, :8], features.cls, atol=1e-5, rtol=0)
        torch.testing.assert_close(output[:, 8:], features.patches.flatten(1, 2), atol=1e-5, rtol=0)


def test_transformers_opens_what_we_write(encoder, tmp_path):
    transformers = pytest.importorskip("transformers", minversion="5.0")
    save_huggingface(encoder, tmp_path / "hf")
    theirs, info = transformers.AutoModel.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert type(theirs).__name__ == "PixioModel"
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert_same_outputs(encoder, theirs.eval())


@pytest.mark.parametrize("spelling", ["on disk", "in memory", "in shards"])
def test_we_open_what_transformers_writes(spelling, tmp_path):
    transformers = pytest.importorskip("transformers", minversion="5.0")
    torch.manual_seed(0)
    theirs = transformers.PixioModel(
        transformers.PixioConfig(
            hidden_size=192, num_hidden_layers=6, num_attention_heads=3, out_features=None, out_indices=None
        )
    ).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    if spelling == "in shards":
        theirs.save_pretrained(tmp_path, max_shard_size="2MB")
        assert (tmp_path / "model.safetensors.index.json").is_file()
    else:
        theirs.save_pretrained(tmp_path)
    if spelling == "in memory":
        save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    assert_same_outputs(read_huggingface(tmp_path).build().eval(), theirs)


def test_the_image_processor_does_what_the_encoder_does(encoder, tmp_path):
    transformers = pytest.importorskip("transformers", minversion="5.0")
    save_huggingface(encoder, tmp_path / "hf")
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "hf")
    pixels = processor(list(images(256, 256).permute(0, 3, 1, 2)), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixels, encoder.preprocess(images(256, 256)), atol=1e-5, rtol=1e-5)
    assert processor(list(images(192, 320).permute(0, 3, 1, 2)), return_tensors="pt")["pixel_values"].shape[2:] == (
        256,
        256,
    )
