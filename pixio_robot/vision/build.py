"""From the configuration's words to an encoder."""

from __future__ import annotations

import dataclasses
from typing import assert_never

from torch import nn

from pixio_robot.choice import Choice, chosen
from pixio_robot.errors import UserError
from pixio_robot.vision.config import EncoderConfig
from pixio_robot.vision.pixio import PixioEncoder, TrainedEncoder, read_pretrained
from pixio_robot.vision.resnet import ResNetConfig, ResNetEncoder
from pixio_robot.vision.resnet18 import ResNet18Config, ResNet18Encoder
from pixio_robot.vision.timm_encoder import open_timm
from pixio_robot.vision.transformers_encoder import open_transformers


class EncoderKind(Choice):
    PIXIO = "pixio"
    """Trained weights: a checkpoint or a policy of ours, a Hugging Face directory, an official file, or a hub name."""
    RANDOM = "random"
    """An untrained Pixio encoder: the control that tells what pre-training adds."""
    RESNET = "resnet"
    """A small ResNet, to be trained from scratch with the policy."""
    RESNET18 = "resnet18"
    """ResNet18 with GroupNorm, from scratch: the encoder of diffusion policy and robomimic."""
    TIMM = "timm"
    """A model of timm, by its name, for comparison."""
    TRANSFORMERS = "transformers"
    """A vision model of transformers, from a directory or by its hub name, for comparison."""
    NONE = "none"
    """No images at all: the control that tells what seeing adds."""


@dataclasses.dataclass(kw_only=True)
class EncoderSource:
    """Where an encoder comes from."""

    kind: EncoderKind = EncoderKind.PIXIO
    """PIXIO: trained weights. RANDOM: an untrained Pixio. RESNET, RESNET18: from scratch. TIMM, TRANSFORMERS: a model
    of that library. NONE: no images at all."""
    path: str | None = None
    """pixio: a directory of ours (of an encoder, or of a policy that was trained with one) or of Hugging Face, an
    official `.pth` file, or a hub name; timm: a weights file (.safetensors, .pth) in place of a download; transformers:
    a model directory."""
    name: str | None = None
    """timm: the model's name; pixio, transformers: a hub name, in place of `path`."""
    pretrained: bool = True
    """timm, transformers: false draws random weights from `seed`."""
    resize: int | None = None
    """Run it at a square of this side [px]; None keeps what it was saved or published with."""
    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    """random: the shape of the Pixio encoder."""
    resnet: ResNetConfig = dataclasses.field(default_factory=ResNetConfig)
    """resnet: three stages of residual blocks, `width`, 2 and 4 times as wide, at stride 2, 4 and 8."""
    seed: int = 0
    """Of initial weights, where they are not loaded."""

    def __post_init__(self) -> None:
        self.kind = chosen(EncoderKind, self.kind, "kind of encoder")


def build_encoder(source: EncoderSource) -> nn.Module | None:
    """The encoder of a source, an `nn.Module` that is a `types.Encoder`, in evaluation mode; None for kind `none`."""
    encoder = _build(source)
    return None if encoder is None else encoder.eval()


def _build(source: EncoderSource) -> nn.Module | None:
    match source.kind:
        case EncoderKind.PIXIO:
            return trained_pixio(source).build()
        case EncoderKind.RANDOM:
            return PixioEncoder(untrained_pixio(source), source.seed)
        case EncoderKind.RESNET:
            return ResNetEncoder(_at(source.resnet, source.resize), source.seed)
        case EncoderKind.RESNET18:
            return ResNet18Encoder(ResNet18Config(resize=source.resize), source.seed)
        case EncoderKind.TIMM:
            if source.name is None:
                raise UserError("An encoder of kind `timm` needs `name`, timm's name of the model.")
            return open_timm(source.name, source.path, source.resize, source.pretrained, source.seed)
        case EncoderKind.TRANSFORMERS:
            where = source.path or source.name
            if where is None:
                raise UserError("An encoder of kind `transformers` needs `path`, a directory, or `name`, a hub name.")
            return open_transformers(where, source.resize, source.pretrained, source.seed)
        case EncoderKind.NONE:
            return None
        case _:
            assert_never(source.kind)


def trained_pixio(source: EncoderSource) -> TrainedEncoder:
    """That of a source of kind `pixio`, in its file."""
    trained = source.path or source.name
    if trained is None:
        raise UserError("An encoder of kind `pixio` needs `path`, its checkpoint, or `name`, a hub name.")
    return read_pretrained(trained, source.resize)


def untrained_pixio(source: EncoderSource) -> EncoderConfig:
    """The shape of that of a source of kind `random`."""
    return _at(source.encoder, source.resize)


def _at[Config: (EncoderConfig, ResNetConfig)](config: Config, resize: int | None) -> Config:
    """With that `resize` [px] in place of its own; None keeps it."""
    return config if resize is None else dataclasses.replace(config, resize=resize)
