"""What policies are called in tables."""

import pytest

from pixio_robot.cli.policy_training.labels import policy_label
from pixio_robot.vision.adapt import Adaptation
from pixio_robot.vision.build import EncoderSource


@pytest.mark.parametrize(
    ("source", "mode", "label"),
    [
        ({"kind": "none"}, "frozen", "No vision"),
        ({"kind": "pixio", "path": "nowhere/yet"}, "frozen", "Frozen Pixio"),
        ({"kind": "random"}, "full", "ViT from scratch"),
        ({"kind": "resnet"}, "full", "ResNet from scratch"),
        ({"kind": "resnet18"}, "frozen", "Frozen untrained ResNet18"),
        ({"kind": "timm", "name": "vit_tiny.mae"}, "lora", "LoRA vit_tiny.mae of timm"),
        ({"kind": "timm", "name": "resnet18", "pretrained": False}, "full", "resnet18 of timm from scratch"),
        ({"kind": "transformers", "name": "facebook/dinov2-base"}, "frozen", "Frozen dinov2-base of transformers"),
        ({"kind": "transformers", "path": "models/clip", "name": "x/y"}, "frozen", "Frozen clip of transformers"),
        ({"kind": "installed", "name": "mine"}, "last_k", "Last blocks trained mine"),
    ],
)
def test_a_label_says_what_the_encoder_is_and_what_of_it_was_trained(source: dict, mode: str, label: str) -> None:
    assert policy_label(EncoderSource(**source), Adaptation(mode)) == label
