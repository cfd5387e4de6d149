import pytest
import torch

from pixio_robot.cli.main import dispatch
from pixio_robot.errors import UserError
from pixio_robot.vision.config import DecoderConfig, EncoderConfig, MaskConfig
from pixio_robot.vision.mae import Pixio
from pixio_robot.vision.pixio import PixioEncoder
from pixio_robot.vision.weights.formats import WeightFormat, detect_format, open_pixio_weights


@pytest.fixture
def model(tmp_path):
    encoder = PixioEncoder(EncoderConfig(size="micro", image_size=64), seed=1)
    model = Pixio(encoder, DecoderConfig(width=32, depth=1, heads=2), MaskConfig(block=1))
    model.save(tmp_path / "mae")
    return model


def test_weights_go_round_through_every_format(model, tmp_path, capsys):
    hops = ["mae", "a", "b.pth", "c", "d"]
    formats = ["ours", "official", "huggingface", "ours"]
    for source, target, name in zip(hops, hops[1:], formats, strict=False):
        assert dispatch(["weights", "convert", str(tmp_path / source), str(tmp_path / target), f"format={name}"]) == 0
        assert detect_format(tmp_path / target) is WeightFormat(name)
        assert open_pixio_weights(tmp_path / target).build().fingerprint() == model.encoder.fingerprint()
    capsys.readouterr()
    assert dispatch(["weights", "info", str(tmp_path / "b.pth")]) == 0
    printed = capsys.readouterr().out
    assert "format official, size micro, 0.9 M parameters" in printed
    assert model.encoder.fingerprint() in printed


def test_a_directory_is_not_called_like_a_file_unasked(model, tmp_path):
    words = ["weights", "convert", str(tmp_path / "mae"), str(tmp_path / "x.pth")]
    with pytest.raises(UserError, match=r"set format=official for a \.pth file"):
        dispatch(words)
    assert not (tmp_path / "x.pth").exists()
    assert dispatch([*words, "format=official"]) == 0
    assert (tmp_path / "x.pth").is_file()


def test_overwriting_takes_nothing_but_weights(model, tmp_path):
    words = ["weights", "convert", str(tmp_path / "mae"), str(tmp_path / "thesis")]
    assert dispatch(words) == 0
    assert dispatch([*words, "format=huggingface", "overwrite=true"]) == 0
    assert dispatch([*words, "overwrite=true"]) == 0
    (tmp_path / "thesis" / "chapter1.txt").write_text("precious")
    with pytest.raises(UserError, match=r"holds chapter1\.txt besides weights"):
        dispatch([*words, "overwrite=true"])
    assert (tmp_path / "thesis" / "chapter1.txt").read_text() == "precious"


@pytest.mark.slow
def test_export(model, tmp_path, capsys):
    target = tmp_path / "encoder.pt2"
    words = ["weights", "export", str(tmp_path / "mae"), str(target), "format=torch_export", "size=32x48"]
    assert dispatch(words) == 0
    assert torch.export.load(target).module()(torch.zeros(3, 32, 48, 3, dtype=torch.uint8))[1].shape == (3, 2, 3, 128)
    with pytest.raises(UserError, match="exists already"):
        dispatch(words)
    assert dispatch([*words, "overwrite=true"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["convert", "mae", "x", "format=pth"], "Unknown format 'pth'.*: huggingface, official, ours\\.$"),
        (["convert", "mae"], "takes 2 paths, not 1: see `pixio-robot weights convert --help`"),
        (["convert", "mae", "x", "frmat=ours"], "'format'"),
        (["convert", "nowhere", "x"], "There is no encoder at nowhere"),
        (["convert", "other", "x"], "neither an encoder"),
        (["export", "mae", "x", "size=32"], "HEIGHTxWIDTH"),
        (["export", "mae", "x", "size=30x32"], "whole patches"),
        (["infos", "mae"], "'info'"),
    ],
)
def test_mistakes(model, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("{}")
    with pytest.raises(UserError, match=message):
        dispatch(["weights", *words])
    assert not (tmp_path / "x").exists()


def test_help(capsys):
    assert dispatch(["weights"]) == 0
    assert "weights convert SRC DST" in capsys.readouterr().out
