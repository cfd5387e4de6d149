"""Display names of policies by what they see with."""

from __future__ import annotations

from pathlib import Path

from pixio_robot.vision.adapt import Adaptation
from pixio_robot.vision.build import EncoderKind, EncoderSource

ADAPTATION_LABELS = {
    Adaptation.FROZEN: "frozen",
    Adaptation.FULL: "fine-tuned",
    Adaptation.LAST_K: "last blocks trained",
    Adaptation.LORA: "LoRA",
}
RESNET_LABELS = {EncoderKind.RESNET: "ResNet", EncoderKind.RESNET18: "ResNet18"}
LIBRARY_SUFFIXES = {
    EncoderKind.TIMM: " of timm",
    EncoderKind.TRANSFORMERS: " of transformers",
    EncoderKind.INSTALLED: "",
}


def policy_label(source: EncoderSource, mode: Adaptation) -> str:
    """`No vision`, `ResNet from scratch`, `Frozen Pixio`, `LoRA vit_base_patch16_224.mae of timm`."""
    if source.kind is EncoderKind.NONE:
        return "No vision"
    name, untrained = _encoder_label(source)
    if source.kind is EncoderKind.RANDOM and mode is Adaptation.FULL:
        return "ViT from scratch"
    if untrained and mode is Adaptation.FULL:
        return f"{name} from scratch"
    text = f"{ADAPTATION_LABELS[mode]} {'untrained ' if untrained else ''}{name}"
    return text[0].upper() + text[1:]


def _encoder_label(source: EncoderSource) -> tuple[str, bool]:
    """What the encoder is called, and whether it has yet to learn everything."""
    if source.kind in RESNET_LABELS:
        return RESNET_LABELS[source.kind], True
    if source.kind in LIBRARY_SUFFIXES:
        name = Path(source.path or source.name or "").name if source.kind is EncoderKind.TRANSFORMERS else source.name
        return f"{name}{LIBRARY_SUFFIXES[source.kind]}", not source.pretrained
    if source.kind is EncoderKind.RANDOM:
        return "random encoder", False
    return "encoder of a policy" if _is_policy_checkpoint(source.path) else "Pixio", False


def _is_policy_checkpoint(path: str | None) -> bool:
    """Whether the encoder is that of a trained policy, which may never have been pretrained."""
    from pixio_robot.vision.weights.formats import WeightFormat, detect_format, resolve_weights_path

    return path is not None and Path(path).exists() and detect_format(resolve_weights_path(path)) is WeightFormat.POLICY
