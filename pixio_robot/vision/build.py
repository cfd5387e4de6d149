"""Build an encoder from its settings."""

from __future__ import annotations

import dataclasses
from typing import Any, assert_never

from torch import nn

from pixio_robot.choice import Choice, parse_choice
from pixio_robot.errors import UserError
from pixio_robot.vision.config import EncoderConfig
from pixio_robot.vision.encoders.plugin_encoder import InstalledConfig, InstalledEncoder, plugin_encoder_names
from pixio_robot.vision.encoders.resnet import ResNetConfig, ResNetEncoder
from pixio_robot.vision.encoders.resnet18 import ResNet18Config, ResNet18Encoder
from pixio_robot.vision.encoders.timm_encoder import open_timm
from pixio_robot.vision.encoders.transformers_encoder import open_transformers
from pixio_robot.vision.pixio import PixioEncoder, TrainedEncoder, read_pretrained


class EncoderKind(Choice):
    """pixio: trained weights. random: untrained Pixio, a control for the benefit of pretraining. resnet (small) and
    resnet18 (diffusion policy's, with GroupNorm): trained from scratch with the policy. timm, transformers: a model
    from that library. installed: one of an installed package. none: no images, a control for the benefit of vision."""

    PIXIO = "pixio"
    RANDOM = "random"
    RESNET = "resnet"
    RESNET18 = "resnet18"
    TIMM = "timm"
    TRANSFORMERS = "transformers"
    INSTALLED = "installed"
    NONE = "none"


@dataclasses.dataclass(kw_only=True)
class EncoderSource:
    """Which encoder to use and where its weights come from."""

    kind: EncoderKind = EncoderKind.PIXIO
    path: str | None = None
    """pixio: a pixio-robot directory (of an encoder, or of a policy with one), a Hugging Face directory, an official
    `.pth` file or a hub name; timm: a weights file (.safetensors, .pth) to use instead of downloading; transformers: a
    model directory; installed: what that encoder loads."""
    name: str | None = None
    """timm: model name; pixio, transformers: hub name, instead of `path`; installed: name of the encoder."""
    pretrained: bool = True
    """timm, transformers, installed: load pretrained weights; false: random weights drawn from `seed`."""
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """installed: further arguments of the encoder, such as {width: 384}."""
    resize: int | None = None
    """Resize every input image to a square of this side [px]; None: as saved or published."""
    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    """random: architecture of the Pixio encoder."""
    resnet: ResNetConfig = dataclasses.field(default_factory=ResNetConfig)
    """resnet: architecture; three stages with 1, 2 and 4 times `width` channels, at strides 2, 4 and 8."""
    resnet18: ResNet18Config = dataclasses.field(default_factory=ResNet18Config)
    """resnet18: how it sees the pixels."""
    seed: int = 0
    """Random seed of initial weights that are not loaded."""

    def __post_init__(self) -> None:
        self.kind = parse_choice(EncoderKind, self.kind, "kind of encoder")


def build_encoder(source: EncoderSource) -> nn.Module:
    """Build the encoder, an `nn.Module` that is a `types.Encoder`, in evaluation mode. Raises UserError for kind `none`
    too."""
    return _instantiate(source).eval()


def _instantiate(source: EncoderSource) -> nn.Module:
    match source.kind:
        case EncoderKind.PIXIO:
            return read_trained_pixio(source).build()
        case EncoderKind.RANDOM:
            return PixioEncoder(random_pixio_config(source), source.seed)
        case EncoderKind.RESNET:
            return ResNetEncoder(_with_resize(source.resnet, source.resize), source.seed)
        case EncoderKind.RESNET18:
            return ResNet18Encoder(_with_resize(source.resnet18, source.resize), source.seed)
        case EncoderKind.TIMM:
            if source.name is None:
                raise UserError("An encoder of kind `timm` needs `name`, the model name in timm.")
            return open_timm(source.name, source.path, source.resize, source.pretrained, source.seed)
        case EncoderKind.TRANSFORMERS:
            where = source.path or source.name
            if where is None:
                raise UserError("An encoder of kind `transformers` needs `path`, a directory, or `name`, a hub name.")
            return open_transformers(where, source.resize, source.pretrained, source.seed)
        case EncoderKind.INSTALLED:
            return _build_plugin_encoder(source)
        case EncoderKind.NONE:
            raise UserError("There is no encoder with encoder=none; choose one.")
        case _:
            assert_never(source.kind)


def _build_plugin_encoder(source: EncoderSource) -> InstalledEncoder:
    if source.name is None:
        raise UserError(f"An encoder of kind `installed` needs `name`, one of: {', '.join(plugin_encoder_names())}.")
    if source.resize is not None:
        raise UserError(f"encoder.resize={source.resize} is not for installed encoders, which may have options for it.")
    if source.pretrained and source.path is None:
        raise UserError(f"The encoder {source.name!r} needs encoder.path, its weights, or encoder.pretrained=false.")
    config = InstalledConfig(name=source.name, options=dict(source.options))
    return InstalledEncoder(config, source.seed, source.path if source.pretrained else None)


def read_trained_pixio(source: EncoderSource) -> TrainedEncoder:
    """The encoder of a source of kind `pixio`, not loaded yet."""
    trained = source.path or source.name
    if trained is None:
        raise UserError("An encoder of kind `pixio` needs `path`, its checkpoint, or `name`, a hub name.")
    return read_pretrained(trained, source.resize)


def random_pixio_config(source: EncoderSource) -> EncoderConfig:
    """The encoder config of a source of kind `random`."""
    return _with_resize(source.encoder, source.resize)


def _with_resize[Config: (EncoderConfig, ResNetConfig, ResNet18Config)](config: Config, resize: int | None) -> Config:
    """Override `resize` [px], unless it is None."""
    return config if resize is None else dataclasses.replace(config, resize=resize)
