"""Pixio weights of any known format, told apart by what lies at a path, or taken from the Hugging Face hub."""

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
"""What a training leaves in its directory."""
CHECKPOINTS, LATEST, TRAINER = "checkpoints", "latest", "trainer.json"
"""What it goes on from, beside that (`training.checkpoint`, which lies above this)."""
_HUB_NAME = re.compile(r"\w[\w.-]*/[\w.-]+")


class WeightFormat(enum.Enum):
    OURS = "ours"
    """A directory of ours, safetensors and config.json: an encoder, or a whole Pixio."""
    HUGGINGFACE = "huggingface"
    """A directory that `transformers.AutoModel.from_pretrained` reads as a PixioModel."""
    OFFICIAL = "official"
    """One .pth file, a plain state dict under the names of the official weights."""
    POLICY = "policy"
    """A policy of ours that looks through a Pixio. It is only read."""


def detect_format(path: Path) -> WeightFormat:
    """Raises UserError for what is none of them."""
    _refuse_parts_of_a_training(path)
    if path.is_file():
        return WeightFormat.OFFICIAL
    if not path.is_dir():
        raise UserError(f"There is nothing at {path}, where an encoder should be; `pixio-robot pretrain` makes one.")
    if not (path / CONFIG).is_file():
        raise UserError(f"{path} is not a checkpoint of an encoder: it holds no {CONFIG}.")
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


def _refuse_parts_of_a_training(path: Path) -> None:
    """Raises UserError for what a training leaves beside its encoder, naming the encoder."""
    if (path / CONFIG).is_file():
        return
    if path.name == CHECKPOINTS and any(path.glob(f"*/{TRAINER}")):
        run = path.parent
    elif path.parent.name == CHECKPOINTS and ((path / TRAINER).is_file() or (path.name == LATEST and path.is_file())):
        run = path.parent.parent
    else:
        # A distillation leaves an encoder of each student.
        if path.is_file():
            return
        students = [student.parent for at in (path, path / MODEL) for student in sorted(at.glob(f"*/{CONFIG}"))]
        if students:
            raise UserError(f"{path} holds several encoders; name one: {', '.join(map(str, students))}.")
        return
    students = [student.parent for student in sorted((run / MODEL).glob(f"*/{CONFIG}"))]
    raise UserError(
        f"{path} is the state of a training, for it to go on from, not an encoder; that is "
        f"{' or '.join(map(str, students)) or run / MODEL}, once the training has finished."
    )


def locate(path_or_name: str | Path) -> Path:
    """The path itself, or the `model` of a training's directory, or where a model of that name on the Hugging Face hub
    was downloaded to. Raises UserError."""
    path = Path(path_or_name)
    if (path / MODEL / CONFIG).is_file():
        return path / MODEL
    return _download(str(path_or_name)) if not path.exists() and _HUB_NAME.fullmatch(str(path_or_name)) else path


def load_any(path_or_name: str | Path) -> PixioEncoder:
    """As `read_any`, in RAM."""
    return read_any(path_or_name).build()


def read_any(path_or_name: str | Path) -> TrainedEncoder:
    """The encoder at a path, whatever its format, or of a hub name such as `facebook/pixio-vitb16`.

    Raises UserError for what is neither, and listing keys that are missing or unexpected.
    """
    path = locate(path_or_name)
    match detect_format(path):
        case WeightFormat.OURS:
            return read_encoder(path)
        case WeightFormat.HUGGINGFACE:
            return read_huggingface(path)
        case WeightFormat.OFFICIAL:
            return read_official(path)
        case WeightFormat.POLICY:
            return read_encoder_of_policy(path)


def _download(name: str) -> Path:
    """The directory of a model of the hub, from its cache where it lies there already."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=[CONFIG, "*.safetensors", INDEX]))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"There is nothing at {name}, and the Hugging Face hub did not give it either: {reason}"
        ) from error


def save_as(encoder: PixioEncoder, path: Path, wanted: WeightFormat) -> None:
    """Write the encoder alone, atomically."""
    match wanted:
        case WeightFormat.OURS:
            encoder.save(path)
        case WeightFormat.HUGGINGFACE:
            save_huggingface(encoder, path)
        case WeightFormat.OFFICIAL:
            # By name, torch refuses files that begin with a dot and have no suffix.
            with atomic_file(path) as temporary, temporary.open("wb") as file:
                torch.save(to_official(encoder), file)
        case WeightFormat.POLICY:
            raise UserError("An encoder alone is no policy: choose another format to write.")
