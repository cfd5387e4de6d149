"""Saving and loading a policy as a directory: `model.safetensors` (all weights, including the encoder's) and
`config.json`.

The directory is self-contained, and opening it executes no code: weights are plain tensors, the rest is JSON.
"""

from __future__ import annotations

import contextlib
import dataclasses
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pixio_robot.data.stats import Statistics
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.files import read_json
from pixio_robot.json_values import config_from_json, to_json_value
from pixio_robot.plugins import Package
from pixio_robot.types import DemoSpec, Encoder
from pixio_robot.vision import checkpointing
from pixio_robot.vision.config import EncoderConfig
from pixio_robot.vision.encoders.plugin_encoder import InstalledConfig, InstalledEncoder
from pixio_robot.vision.encoders.resnet import ResNetConfig, ResNetEncoder
from pixio_robot.vision.encoders.resnet18 import ResNet18Config, ResNet18Encoder
from pixio_robot.vision.encoders.timm_encoder import TimmConfig, TimmEncoder
from pixio_robot.vision.encoders.transformers_encoder import TransformersConfig, TransformersEncoder
from pixio_robot.vision.pixio import PixioEncoder
from pixio_robot.vision.weights.formats import MODEL
from pixio_robot.vision.weights.policy import POLICY
from policies.base import ChunkPolicy
from policies.registry import PolicyEntry, build_policy, get_policy_entry, get_policy_name, list_policy_names

FORMAT_VERSION = 2
"""Increase whenever a policy's layers or their names change."""
ENCODERS: dict[str, tuple[type[Any], type[nn.Module]]] = {
    "pixio": (EncoderConfig, PixioEncoder),
    "resnet": (ResNetConfig, ResNetEncoder),
    "resnet18": (ResNet18Config, ResNet18Encoder),
    "timm": (TimmConfig, TimmEncoder),
    "transformers": (TransformersConfig, TransformersEncoder),
    "installed": (InstalledConfig, InstalledEncoder),
}
"""Encoders that can be rebuilt from a config alone, without their original checkpoint."""


def save_policy(
    directory: Path | str,
    policy: ChunkPolicy,
    *,
    encoder_source: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write `policy` to `directory` atomically, replacing an earlier one; raises UserError if there is anything else.

    `encoder_source` (where the encoder came from) and `extra` are JSON values for information; loading does not need
    them.
    """
    encoder = policy.conditioning.encoder
    description = {
        "format_version": FORMAT_VERSION,
        "policy": (name := get_policy_name(policy)),
        "package": None if (package := get_policy_entry(name).package) is None else dataclasses.asdict(package),
        "config": to_json_value(policy.config),
        "spec": policy.spec.to_json(),
        "statistics": policy.statistics.to_json(),
        "goals": {task: [float(value) for value in goal] for task, goal in policy.goals.items()},
        "encoder": None
        if encoder is None
        else {
            "description": describe_encoder(encoder),
            "fingerprint": typing.cast(Encoder, encoder).fingerprint(),
            "source": dict(encoder_source or {}),
        },
        "extra": dict(extra or {}),
    }
    checkpointing.save_checkpoint(directory, POLICY, description, policy)


def load_policy(directory: Path | str, device: torch.device | str = "cpu") -> ChunkPolicy:
    """Load the policy in `directory`, or in the `model` folder of a training run, in evaluation mode and with a frozen
    encoder (`vision.adapt` unfreezes it).

    Raises UserError naming what is wrong with it.
    """
    directory = Path(directory)
    if (directory / MODEL / checkpointing.CONFIG).is_file():
        directory = directory / MODEL
    if not directory.is_dir():
        raise UserError(f"There is no policy directory {directory}; `pixio-robot train out={directory}` creates it.")
    description, path = read_policy_config(directory), directory / checkpointing.CONFIG
    weights = checkpointing.read_weights(directory / checkpointing.WEIGHTS)
    with _damage_as_user_error(path):
        entry = _get_policy_entry(description, directory)
        config = config_from_json(entry.config, description["config"], str(path))
        spec = DemoSpec.from_json(description["spec"])
        statistics = Statistics.from_json(description["statistics"])
        goals = dict(description["goals"])
        about_encoder = None if description["encoder"] is None else description["encoder"]["description"]
        is_own = entry.package is None and (about_encoder is None or about_encoder["kind"] != "installed")
    # What fails in a package may be its own mistake, which its traceback shows.
    with _damage_as_user_error(path) if is_own else contextlib.nullcontext():
        encoder = None if about_encoder is None else rebuild_encoder(about_encoder, str(path))
        policy = build_policy(description["policy"], config, spec, statistics, encoder)
        policy.goals = goals
    try:
        checkpointing.load_weights(policy, weights, directory)
    except UserError as error:
        if entry.package is not None and (of := description.get("package")) != dataclasses.asdict(entry.package):
            saved = "a script" if of is None else Package(**of)
            raise UserError(f"{directory} was saved by {saved}, and {entry.package} is installed. {error}") from error
        raise
    policy.conditioning.freeze_encoder()
    return policy.eval().to(device)


@contextlib.contextmanager
def _damage_as_user_error(path: Path) -> Iterator[None]:
    """A damaged value may fail anywhere where it is read, or where a policy is built from it."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a complete policy description ({error!r}).") from error


def _get_policy_entry(description: Mapping[str, Any], directory: Path) -> PolicyEntry:
    """The policy named in a checkpoint. Raises UserError if it comes from a package that is not installed."""
    name, of = description["policy"], description.get("package")
    if of is None:
        return get_policy_entry(name)
    saved = Package(**of)
    what = f"{directory} holds the policy {name!r} of the package {saved}"
    if name not in list_policy_names():
        raise UserError(f"{what}, which is not installed here: install it first.")
    entry = get_policy_entry(name)
    if entry.package is None or entry.package.name != saved.name:
        raise UserError(
            f"{what}, but here {name!r} is a policy of {entry.package or 'pixio-robot itself'}: install {saved.name}, "
            "and uninstall the other one."
        )
    return entry


def read_policy_config(directory: Path | str) -> dict[str, Any]:
    """`config.json` of a policy directory, checked for kind and version."""
    path = Path(directory) / checkpointing.CONFIG
    description = read_json(path)
    kind = description.get("kind") if isinstance(description, dict) else None
    if kind != POLICY:
        raise UserError(f"{directory} contains a checkpoint of kind {kind!r}, but a policy directory is expected.")
    version = description.get("format_version")
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path} has format_version {version}, but this version of pixio-robot reads {FORMAT_VERSION}: use the "
            "version that wrote it, or train the policy again."
        )
    return description


def describe_encoder(encoder: nn.Module) -> dict[str, Any]:
    """{"kind", "config"}: the architecture, sufficient to rebuild it. Raises UserError for an unknown class."""
    for kind, (_, cls) in ENCODERS.items():
        if type(encoder) is cls:
            return {"kind": kind, "config": dataclasses.asdict(typing.cast(Any, encoder.config))}
    raise UserError(
        f"A policy with an encoder of class {type(encoder).__name__} cannot be saved: add the class to ENCODERS in "
        "policies/persistence.py."
    )


def rebuild_encoder(description: Mapping[str, Any], where: str) -> nn.Module:
    """The encoder described by `describe_encoder`, with new random weights. `where` it is described, for errors."""
    kind = description["kind"]
    if kind not in ENCODERS:
        raise unknown_name("encoder kind", kind, ENCODERS)
    config, cls = ENCODERS[kind]
    return cls(config_from_json(config, description["config"], where))
