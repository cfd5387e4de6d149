"""Detect the format of Pixio weights at a path or on the Hugging Face hub, and read or write them."""

from __future__ import annotations

import enum
import re
from pathlib import Path

import torch

from pixio_robot.errors import UserError
from pixio_robot.files import atomic_file, read_json
from pixio_robot.vision.checkpointing import CONFIG
from pixio_robot.vision.pixio import KIND, MODEL_KIND, PixioEncoder, TrainedEncoder, read_encoder
from pixio_robot.vision.weights.huggingface import INDEX, read_huggingface, save_huggingface
from pixio_robot.vision.weights.official import read_official, to_official
from pixio_robot.vision.weights.policy import POLICY, read_encoder_of_policy

MODEL = "model"
"""Subdirectory of a run directory with the trained model."""
CHECKPOINTS, LATEST, TRAINER = "checkpoints", "latest", "trainer.json"
"""Training state in a run directory (as in `training.checkpoint`, which cannot be imported here)."""
_HUB_NAME = re.compile(r"\w[\w.-]*/[\w.-]+")


class WeightFormat(enum.Enum):
    OURS = "ours"
    """A pixio-robot directory with safetensors and config.json: an encoder, or a Pixio with decoder."""
    HUGGINGFACE = "huggingface"
    """A directory that `transformers.AutoModel.from_pretrained` reads as a PixioModel."""
    OFFICIAL = "official"
    """A .pth file: a plain state dict with the names of the official weights."""
    POLICY = "policy"
    """A pixio-robot policy with a Pixio encoder. Read only."""


def detect_format(path: Path) -> WeightFormat:
    """Detect the format. Raises UserError if it is none of them."""
    _reject_training_state(path)
    if path.is_file():
        return WeightFormat.OFFICIAL
    if not path.is_dir():
        raise UserError(f"There is no encoder at {path}; `pixio-robot pretrain` creates one.")
    if not (path / CONFIG).is_file():
        raise UserError(f"{path} is not an encoder checkpoint: it contains no {CONFIG}.")
    config = read_json(path / CONFIG)
    kind, model_type = (config.get(key) if isinstance(config, dict) else None for key in ("kind", "model_type"))
    if kind in (KIND, MODEL_KIND):
        return WeightFormat.OURS
    if model_type == "pixio":
        return WeightFormat.HUGGINGFACE
    if kind == POLICY:
        return WeightFormat.POLICY
    raise UserError(
        f"{path / CONFIG} describes neither an encoder of pixio-robot (kind {KIND}, {MODEL_KIND} or {POLICY}, not "
        f"{kind!r}) nor a Hugging Face directory of Pixio (model_type 'pixio', not {model_type!r})."
    )


def _reject_training_state(path: Path) -> None:
    """Raise UserError for other parts of a training run, naming the path of its encoder."""
    if (path / CONFIG).is_file():
        return
    if path.name == CHECKPOINTS and any(path.glob(f"*/{TRAINER}")):
        run = path.parent
    elif path.parent.name == CHECKPOINTS and ((path / TRAINER).is_file() or (path.name == LATEST and path.is_file())):
        run = path.parent.parent
    else:
        # A distillation run has one encoder per student.
        if path.is_file():
            return
        students = [student.parent for at in (path, path / MODEL) for student in sorted(at.glob(f"*/{CONFIG}"))]
        if students:
            raise UserError(f"{path} contains several encoders; choose one: {', '.join(map(str, students))}.")
        return
    students = [student.parent for student in sorted((run / MODEL).glob(f"*/{CONFIG}"))]
    raise UserError(
        f"{path} is a training state for resuming, not an encoder; use "
        f"{' or '.join(map(str, students)) or run / MODEL}, which is written when training finishes."
    )


def resolve_weights_path(path_or_name: str | Path) -> Path:
    """Resolve a path, a run directory (its `model`) or a Hugging Face hub name (its download). Raises UserError."""
    path = Path(path_or_name)
    if (path / MODEL / CONFIG).is_file():
        return path / MODEL
    return _download_from_hub(str(path_or_name)) if not path.exists() and is_hub_name(str(path_or_name)) else path


def is_hub_name(text: str) -> bool:
    """Whether a text has the form of a model's name on the Hugging Face hub: `owner/name`."""
    return _HUB_NAME.fullmatch(text) is not None


def open_pixio_weights(path_or_name: str | Path) -> TrainedEncoder:
    """Open the encoder at a path, in any format, or of a hub name such as `facebook/pixio-vitb16`.

    Raises UserError for anything else, and for missing or unexpected keys, which it lists.
    """
    path = resolve_weights_path(path_or_name)
    match detect_format(path):
        case WeightFormat.OURS:
            return read_encoder(path)
        case WeightFormat.HUGGINGFACE:
            return read_huggingface(path)
        case WeightFormat.OFFICIAL:
            return read_official(path)
        case WeightFormat.POLICY:
            return read_encoder_of_policy(path)


def _download_from_hub(name: str) -> Path:
    """Download a model from the hub, or use the cache; returns its directory."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=[CONFIG, "*.safetensors", INDEX]))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"There is nothing at the path {name}, and downloading it from the Hugging Face hub failed: {reason}"
        ) from error


def save_encoder_as(encoder: PixioEncoder, path: Path, weight_format: WeightFormat) -> None:
    """Write only the encoder, atomically."""
    match weight_format:
        case WeightFormat.OURS:
            encoder.save(path)
        case WeightFormat.HUGGINGFACE:
            save_huggingface(encoder, path)
        case WeightFormat.OFFICIAL:
            # Given a path, torch puts its name into the file, rejects some, and tells of a full disk in its own words.
            with atomic_file(path) as temporary, temporary.open("wb") as file:
                torch.save(to_official(encoder), file)
        case WeightFormat.POLICY:
            raise UserError("An encoder cannot be written as a policy; choose another format.")
