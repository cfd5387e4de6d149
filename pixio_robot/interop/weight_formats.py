"""Pixio weights of any known format, told apart by what lies at a path."""

from __future__ import annotations

import enum
from pathlib import Path

import torch

from pixio_robot.errors import UserError
from pixio_robot.files import atomic_file, read_json
from pixio_robot.interop.huggingface import load_huggingface, save_huggingface
from pixio_robot.interop.pixio_weights import load_official, to_official
from pixio_robot.vision.checkpointing import CONFIG
from pixio_robot.vision.pixio import KIND, MODEL_KIND, PixioEncoder


class WeightFormat(enum.Enum):
    OURS = "ours"
    """A directory that `PixioEncoder.from_pretrained` reads: safetensors and config.json."""
    HUGGINGFACE = "huggingface"
    """A directory that `transformers.AutoModel.from_pretrained` reads as a PixioModel."""
    OFFICIAL = "official"
    """One .pth file, a plain state dict under the names of the official weights."""


def detect_format(path: Path) -> WeightFormat:
    """Raises UserError for what is none of them."""
    if path.is_file():
        return WeightFormat.OFFICIAL
    if not path.is_dir():
        raise UserError(f"There is nothing at {path}.")
    config = read_json(path / CONFIG)
    if isinstance(config, dict) and config.get("kind") in (KIND, MODEL_KIND):
        return WeightFormat.OURS
    if isinstance(config, dict) and config.get("model_type") == "pixio":
        return WeightFormat.HUGGINGFACE
    raise UserError(
        f"{path / CONFIG} describes neither an encoder of pixio-robot (kind {KIND} or {MODEL_KIND}) nor a Hugging Face "
        "directory of Pixio (model_type pixio)."
    )


def load_any(path: Path) -> PixioEncoder:
    """The encoder at `path`, whatever its format. Raises UserError listing keys that are missing or unexpected."""
    match detect_format(path):
        case WeightFormat.OURS:
            return PixioEncoder.from_pretrained(path)
        case WeightFormat.HUGGINGFACE:
            return load_huggingface(path)
        case WeightFormat.OFFICIAL:
            return load_official(path)


def save_as(encoder: PixioEncoder, path: Path, wanted: WeightFormat) -> None:
    """Write the encoder alone, atomically."""
    match wanted:
        case WeightFormat.OURS:
            encoder.save(path)
        case WeightFormat.HUGGINGFACE:
            save_huggingface(encoder, path)
        case WeightFormat.OFFICIAL:
            with atomic_file(path) as temporary:
                torch.save(to_official(encoder), temporary)
