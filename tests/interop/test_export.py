"""Exported encoders say what the encoder says, for any number of images."""

import json

import numpy as np
import pytest
import torch

from pixio_robot.errors import UserError
from pixio_robot.interop.encoder_export import ExportFormat, export_encoder
from pixio_robot.vision.config import EncoderConfig
from pixio_robot.vision.encoders.transformers_encoder import TransformersConfig, TransformersEncoder
from pixio_robot.vision.pixio import PixioEncoder

CONFIG = EncoderConfig(size="micro", patch=8, image_size=32)


def images(batch):
    return torch.randint(0, 256, (batch, 24, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(batch))


@pytest.mark.slow
def test_onnx(tmp_path):
    import onnxruntime

    encoder = PixioEncoder(CONFIG, seed=1)
    assert export_encoder(encoder, tmp_path / "encoder.onnx", ExportFormat.ONNX, 24, 40) < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx")
    for batch in (1, 5):
        cls, patches = session.run(["cls", "patches"], {"images": images(batch).numpy()})
        wanted = encoder(images(batch))
        np.testing.assert_allclose(cls, wanted.cls.detach().numpy(), atol=1e-4)
        np.testing.assert_allclose(patches, wanted.patches.detach().numpy(), atol=1e-4)


@pytest.mark.slow
def test_an_onnx_file_keeps_the_weights_that_are_beside_it(tmp_path, monkeypatch):
    import onnxruntime
    from torch.onnx._internal.exporter import _onnx_program

    monkeypatch.setattr(_onnx_program, "_LARGE_MODEL_THRESHOLD", 0)
    export_encoder(PixioEncoder(CONFIG, seed=1), tmp_path / "encoder.onnx", ExportFormat.ONNX, 24, 40)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder.onnx", "encoder.onnx.data"]
    onnxruntime.InferenceSession(tmp_path / "encoder.onnx")


def test_torch_export(tmp_path):
    encoder = PixioEncoder(CONFIG, seed=1)
    assert export_encoder(encoder, tmp_path / "encoder.pt2", ExportFormat.TORCH_EXPORT, 24, 40) < 1e-4
    program = torch.export.load(tmp_path / "encoder.pt2").module()
    cls, patches = program(images(7))
    torch.testing.assert_close(cls, encoder(images(7)).cls, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(patches, encoder(images(7)).patches, atol=1e-4, rtol=1e-4)


def test_an_exported_vit_mae_takes_any_number_of_images(tmp_path):
    shape = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    shape |= {"model_type": "vit_mae", "patch_size": 8, "image_size": 32, "mask_ratio": 0.0}
    settings = {"resize": 32, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}
    encoder = TransformersEncoder(TransformersConfig(architecture=json.dumps(shape), **settings)).eval()
    assert export_encoder(encoder, tmp_path / "encoder.pt2", ExportFormat.TORCH_EXPORT, 24, 40) < 1e-4
    _, patches = torch.export.load(tmp_path / "encoder.pt2").module()(images(7))
    torch.testing.assert_close(patches, encoder(images(7)).patches, atol=1e-4, rtol=1e-4)


class Forgetful(torch.nn.Module):
    """An encoder whose answer changes between tracing and the check."""

    def __init__(self):
        super().__init__()
        self.encoder = PixioEncoder(CONFIG)
        self.calls = 0

    def forward(self, frames):
        self.calls += 1
        return self.encoder(frames).map(lambda x: x + 1.0 * self.calls)


def test_a_file_that_says_something_else_is_not_written(tmp_path):
    with pytest.raises(UserError, match="differs from the original"):
        export_encoder(Forgetful(), tmp_path / "encoder.pt2", ExportFormat.TORCH_EXPORT, 24, 40)
    assert list(tmp_path.iterdir()) == []
