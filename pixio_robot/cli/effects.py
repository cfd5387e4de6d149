"""Which training settings of encoder and adaptation have an effect, for tables that compare runs by their settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pixio_robot.vision.adapt import Adaptation
from pixio_robot.vision.build import EncoderKind

_LOADED = ("path", "name", "pretrained", "resize", "seed")
_OF_KIND = {
    EncoderKind.PIXIO: ("path", "name", "resize"),
    EncoderKind.RANDOM: ("encoder", "resize", "seed"),
    EncoderKind.RESNET: ("resnet", "resize", "seed"),
    EncoderKind.RESNET18: ("resnet18", "resize", "seed"),
    EncoderKind.TIMM: _LOADED,
    EncoderKind.TRANSFORMERS: _LOADED,
    EncoderKind.INSTALLED: ("path", "name", "pretrained", "options", "seed"),
    EncoderKind.NONE: (),
}
"""Kind of encoder -> its settings, or groups of settings, in `EncoderSource`."""
_TRAINED = ("encoder_lr_scale", "adapt.layer_decay")
_OF_MODE = {
    Adaptation.FROZEN: (),
    Adaptation.FULL: _TRAINED,
    Adaptation.LAST_K: (*_TRAINED, "adapt.last_k"),
    Adaptation.LORA: (*_TRAINED, "adapt.lora_rank", "adapt.lora_alpha", "adapt.lora_seed"),
}
_ALL_OF_MODES = {name for names in _OF_MODE.values() for name in names}


def with_effect(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The recorded settings of `train` (flat: `encoder.encoder.size`) without those that its encoder and adaptation do
    not use, such as the size of a Pixio for a ResNet."""
    if "encoder.kind" not in settings:
        return dict(settings)
    kind = EncoderKind(settings["encoder.kind"])
    used = {"encoder.kind", *(f"encoder.{name}" for name in _OF_KIND[kind])}
    if kind is not EncoderKind.NONE:
        used |= {"adapt.mode", *_OF_MODE[Adaptation(settings["adapt.mode"])]}
    return {key: value for key, value in settings.items() if not _of_vision(key) or _is_one_of(key, used)}


def _of_vision(key: str) -> bool:
    return key.startswith(("encoder.", "adapt.")) or key in _ALL_OF_MODES


def _is_one_of(key: str, names: set[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)
