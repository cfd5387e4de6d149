import pytest
import torch

from pixio_robot.errors import UserError
from pixio_robot.json_values import config_from_json
from pixio_robot.vision.config import DecoderConfig, EncoderConfig, MaskConfig, PoolingConfig
from pixio_robot.vision.vit import VisionTransformer


@pytest.mark.parametrize(("size", "millions"), [("b", 86), ("l", 303), ("h", 631), ("1b", 1362), ("5b", 5441)])
def test_published_sizes_have_the_published_parameter_counts(size, millions):
    with torch.device("meta"):
        model = VisionTransformer(EncoderConfig(size=size))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.005)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: EncoderConfig(size="tinny"), "'tiny'"),
        (lambda: EncoderConfig(image_size=100, patch=16), "multiple of patch=16"),
        (lambda: EncoderConfig(image_size=96, patch=8, resize=60), "resize=60"),
        (lambda: EncoderConfig(patch=0), "patch=0"),
        (lambda: EncoderConfig(drop_path=1.0), "drop_path"),
        (lambda: DecoderConfig(width=100, heads=16), "multiple of heads"),
        (lambda: MaskConfig(ratio=1.0), "ratio"),
        (lambda: MaskConfig(block=0), "block"),
        (lambda: PoolingConfig(name="spatial_softmaxx"), "'spatial_softmax'"),
        (lambda: PoolingConfig(keypoints=0), "keypoints=0"),
        (lambda: config_from_json(EncoderConfig, {"sice": "tiny"}, "here"), "here.*'size'"),
        (
            lambda: config_from_json(EncoderConfig, {"patch": "8"}, "here"),
            "here: encoder.patch='8' must be a whole number",
        ),
    ],
)
def test_bad_values_raise_user_errors(make, words):
    with pytest.raises(UserError, match=words):
        make()
