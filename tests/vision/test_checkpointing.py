import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from pixio_robot.errors import UserError
from pixio_robot.files import read_json, write_json
from pixio_robot.vision.config import EncoderConfig
from pixio_robot.vision.pixio import PixioEncoder
from pixio_robot.vision.weights.huggingface import save_huggingface

CONFIG = EncoderConfig(size="tiny", patch=8, image_size=32)


@pytest.fixture
def saved(tmp_path):
    PixioEncoder(CONFIG).save(tmp_path / "encoder")
    return tmp_path / "encoder"


def change_config(saved, **values):
    write_json(saved / "config.json", read_json(saved / "config.json") | values)


def test_the_directory_holds_plain_files_only(saved):
    assert {path.name for path in saved.iterdir()} == {"config.json", "model.safetensors"}


def test_others_may_read_weights_as_far_as_the_umask_lets_them(tmp_path):
    before = os.umask(0o027)
    try:
        PixioEncoder(CONFIG).save(tmp_path / "ours")
        save_huggingface(PixioEncoder(CONFIG), tmp_path / "theirs")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*.*")} == {0o640}


def test_saving_replaces_weights_and_nothing_else(saved, tmp_path):
    encoder = PixioEncoder(CONFIG, seed=5)
    encoder.save(saved)
    assert PixioEncoder.load(saved).fingerprint() == encoder.fingerprint()
    (tmp_path / "empty").mkdir()
    encoder.save(tmp_path / "empty")
    (saved / "demos").mkdir()
    (saved / "demos" / "0.hdf5").write_text("the only copy")
    (saved / "notes.txt").write_text("mine")
    for save in (encoder.save, lambda path: save_huggingface(encoder, path)):
        with pytest.raises(UserError, match=r"encoder holds demos and 1 more besides weights.*encoder/model"):
            save(saved)
        with pytest.raises(UserError, match=r"notes\.txt is a file"):
            save(saved / "notes.txt")
    assert (saved / "demos" / "0.hdf5").read_text() == "the only copy"
    assert (saved / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda d: (d / "config.json").unlink(), "contains no config.json"),
        (lambda d: (d / "config.json").write_text("{"), "not valid JSON"),
        (lambda d: (d / "config.json").write_text("[]"), "not None"),
        (lambda d: (d / "model.safetensors").unlink(), "no weights file"),
        (lambda d: (d / "model.safetensors").write_bytes(b"xx"), "not a readable safetensors"),
        (lambda d: change_config(d, kind="run"), "kind pixio_encoder, pixio or policy, not 'run'"),
        (lambda d: change_config(d, format_version=9), "format_version 9"),
        (lambda d: change_config(d, encoder={"size": "huge"}), "huge"),
        (lambda d: change_config(d, encoder=None), "encoder"),
        (
            lambda d: change_config(d, encoder={"size": "tiny", "patch": 8, "image_size": 64}),
            "wrong shape: vit.patch_pos",
        ),
    ],
)
def test_corrupt_checkpoint_is_refused_by_name(saved, spoil, words):
    spoil(saved)
    with pytest.raises(UserError, match=words):
        PixioEncoder.from_pretrained(saved)


def test_a_missing_directory(tmp_path):
    with pytest.raises(UserError, match=r"There is no encoder at .*nowhere"):
        PixioEncoder.from_pretrained(tmp_path / "nowhere")


def test_missing_and_unexpected_weights_are_listed(saved):
    weights = load_file(saved / "model.safetensors")
    weights["vit.extra"] = torch.zeros(1)
    del weights["vit.norm.bias"]
    save_file(weights, saved / "model.safetensors")
    with pytest.raises(UserError, match=r"missing: vit\.norm\.bias; unexpected: vit\.extra"):
        PixioEncoder.from_pretrained(saved)


def test_saving_again_replaces(saved):
    PixioEncoder(CONFIG, seed=9).save(saved)
    assert PixioEncoder.from_pretrained(saved).fingerprint() == PixioEncoder(CONFIG, seed=9).fingerprint()
