"""Which training settings of encoder and adaptation have an effect, for tables that compare runs by their settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pixio_robot.vision.adapt import Adaptation
from pixio_robot.vision.build import EncoderKind

_PRETRAINED_SETTINGS = ("path", "name", "pretrained", "resize", "seed")
_SETTINGS_BY_KIND = {
    EncoderKind.PIXIO: ("path", "name", "resize"),
    EncoderKind.RANDOM: ("encoder", "resize", "seed"),
    EncoderKind.RESNET: ("resnet", "resize", "seed"),
    EncoderKind.RESNET18: ("resnet18", "resize", "seed"),
    EncoderKind.TIMM: _PRETRAINED_SETTINGS,
    EncoderKind.TRANSFORMERS: _PRETRAINED_SETTINGS,
    EncoderKind.INSTALLED: ("path", "name", "pretrained", "options", "seed"),
    EncoderKind.NONE: (),
}
"""Kind of encoder -> its settings, or groups of settings, in `EncoderSource`."""
_TRAINABLE_SETTINGS = ("encoder_lr_scale", "adapt.layer_decay")
_SETTINGS_BY_MODE = {
    Adaptation.FROZEN: (),
    Adaptation.FULL: _TRAINABLE_SETTINGS,
    Adaptation.LAST_K: (*_TRAINABLE_SETTINGS, "adapt.last_k"),
    Adaptation.LORA: (*_TRAINABLE_SETTINGS, "adapt.lora_rank", "adapt.lora_alpha", "adapt.lora_seed"),
}
_ALL_MODE_SETTINGS = {name for names in _SETTINGS_BY_MODE.values() for name in names}


def drop_unused_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The recorded settings of `train` (flat: `encoder.encoder.size`) without those that its encoder and adaptation do
    not use, such as the size of a Pixio for a ResNet."""
    if "encoder.kind" not in settings:
        return dict(settings)
    kind = EncoderKind(settings["encoder.kind"])
    used = {"encoder.kind", *(f"encoder.{name}" for name in _SETTINGS_BY_KIND[kind])}
    if kind is not EncoderKind.NONE:
        used |= {"adapt.mode", *_SETTINGS_BY_MODE[Adaptation(settings["adapt.mode"])]}
    return {key: value for key, value in settings.items() if not _is_encoder_setting(key) or _is_one_of(key, used)}


def _is_encoder_setting(key: str) -> bool:
    return key.startswith(("encoder.", "adapt.")) or key in _ALL_MODE_SETTINGS


def _is_one_of(key: str, names: set[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)
