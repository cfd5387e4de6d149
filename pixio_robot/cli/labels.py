"""Display names of policies by what they see with."""

from __future__ import annotations

from pathlib import Path

from pixio_robot.vision.adapt import Adaptation
from pixio_robot.vision.build import EncoderKind, EncoderSource

HOW = {
    Adaptation.FROZEN: "frozen",
    Adaptation.FULL: "fine-tuned",
    Adaptation.LAST_K: "last blocks trained",
    Adaptation.LORA: "LoRA",
}
RESNETS = {EncoderKind.RESNET: "ResNet", EncoderKind.RESNET18: "ResNet18"}
LIBRARIES = {
    EncoderKind.TIMM: " of timm",
    EncoderKind.TRANSFORMERS: " of transformers",
    EncoderKind.INSTALLED: "",
}


def label_of(source: EncoderSource, mode: Adaptation) -> str:
    """`No vision`, `ResNet from scratch`, `Frozen Pixio`, `LoRA vit_base_patch16_224.mae of timm`."""
    if source.kind is EncoderKind.NONE:
        return "No vision"
    name, untrained = _network(source)
    if source.kind is EncoderKind.RANDOM and mode is Adaptation.FULL:
        return "ViT from scratch"
    if untrained and mode is Adaptation.FULL:
        return f"{name} from scratch"
    text = f"{HOW[mode]} {'untrained ' if untrained else ''}{name}"
    return text[0].upper() + text[1:]


def _network(source: EncoderSource) -> tuple[str, bool]:
    """What the encoder is called, and whether it has yet to learn everything."""
    if source.kind in RESNETS:
        return RESNETS[source.kind], True
    if source.kind in LIBRARIES:
        name = Path(source.path or source.name or "").name if source.kind is EncoderKind.TRANSFORMERS else source.name
        return f"{name}{LIBRARIES[source.kind]}", not source.pretrained
    if source.kind is EncoderKind.RANDOM:
        return "random encoder", False
    return "encoder of a policy" if _is_of_policy(source.path) else "Pixio", False


def _is_of_policy(path: str | None) -> bool:
    """Whether the encoder is that of a trained policy, which may never have been pretrained."""
    from pixio_robot.vision.weights.formats import WeightFormat, detect_format, resolve_weights_path

    return path is not None and Path(path).exists() and detect_format(resolve_weights_path(path)) is WeightFormat.POLICY
