"""Read the Pixio encoder out of a saved policy (written by `policies/persistence.py`)."""

from __future__ import annotations

from pathlib import Path

from pixio_robot.errors import UserError
from pixio_robot.files import read_json
from pixio_robot.json_values import config_from_json
from pixio_robot.vision import checkpointing
from pixio_robot.vision.config import EncoderConfig
from pixio_robot.vision.pixio import TrainedEncoder

POLICY = "policy"
"""`kind` of a policy checkpoint."""
ENCODER = "conditioning.encoder."
PER_CAMERA_ENCODERS = "conditioning.further.encoder."
"""Prefixes of the weights of the shared (or first) encoder, and of the other cameras' encoders, if not shared."""


def read_encoder_of_policy(directory: Path) -> TrainedEncoder:
    """Raises UserError if the policy's encoder is not a Pixio, or if it has one per camera."""
    path = directory / checkpointing.CONFIG
    saved = (read_json(path).get("encoder") or {}).get("description") or {"kind": "none"}
    if saved["kind"] != "pixio":
        raise UserError(f"The policy in {directory} has an encoder of kind {saved['kind']}, not a Pixio.")
    weights = checkpointing.read_weights(directory / checkpointing.WEIGHTS)
    if any(key.startswith(PER_CAMERA_ENCODERS) for key in weights):
        raise UserError(f"The policy in {directory} has an encoder for each camera (conditioning.share_encoder=false).")
    encoder_weights = {key.removeprefix(ENCODER): value for key, value in weights.items() if key.startswith(ENCODER)}
    return TrainedEncoder(config_from_json(EncoderConfig, saved.get("config"), str(path)), encoder_weights, directory)
