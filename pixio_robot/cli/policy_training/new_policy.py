"""Build the policy that `train` starts from: encoder, method, and the source of their initial weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pixio_robot.cli.policy_directory import policy_directory
from pixio_robot.data.features.views import Views
from pixio_robot.errors import UserError
from pixio_robot.training.distributed.processes import current_processes
from pixio_robot.training.imitation.encoders import named_encoders
from pixio_robot.vision.adapt import Adaptation, adapt
from pixio_robot.vision.build import EncoderKind, build_encoder
from pixio_robot.vision.checkpointing import WEIGHTS, read_weights
from pixio_robot.vision.encoders.deferred import build_deferred_encoder, move_to_meta
from pixio_robot.vision.lora import BASE, has_adapters, strip_adapters
from pixio_robot.vision.weight_init import Weights, add_prefix, materialise
from policies.base import ChunkPolicy
from policies.persistence import read_policy_config
from policies.registry import build_policy, get_policy_name_from_config
from policies.relative_poses import ABSOLUTE
from policies.relative_statistics import with_relative_poses

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pixio_robot.cli.policy_training.training_data import Demonstrations
    from pixio_robot.cli.train import TrainCommand
    from pixio_robot.types import DemoSpec
    from policies.config import ConditioningConfig


SMALLEST_CROP_SHARE = 0.25
"""Smallest share of an image that a crop may leave."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NewPolicy:
    """policy: on its device, except for parameters on the meta device that `weights` will fill later. encoder: None
    without vision. views: versions of every frame that are encoded once; None if the encoder runs in every step."""

    policy: ChunkPolicy
    encoder: nn.Module | None
    views: Views | None
    weights: Weights | None


def build_new_policy(command: TrainCommand, data: Demonstrations, device: torch.device) -> NewPolicy:
    """Build the policy. Raises UserError for incompatible settings, and for weights that do not fit."""
    conditioning = command.policy.conditioning
    views = _cached_views(command)
    if views is None and command.features_dtype != "float32":
        raise UserError(
            f"features_dtype={command.features_dtype} is for cached features, but none are cached here: leave it out "
            "(for the precision of training, see loop.dtype)."
        )
    # With FSDP each process holds only a part of the policy, so none builds the whole encoder, unless it has to encode
    # all frames first.
    deferred = None
    if command.loop.parallel == "fsdp" and current_processes().world_size > 1 and views is None:
        deferred = build_deferred_encoder(command.encoder)
    encoder = None
    if command.encoder.kind is not EncoderKind.NONE:
        encoder = build_encoder(command.encoder) if deferred is None else deferred.encoder
    if encoder is None:
        conditioning.cameras = []
    elif not conditioning.cameras:
        conditioning.cameras = sorted(data.spec.cameras)
    _check_crop(conditioning, data.spec)
    if encoder is not None:
        adapt(encoder, command.adapt)
    if conditioning.goal_dim not in (0, goal_dim := len(next(iter(data.goals.values()), []))):
        raise UserError(f"policy.conditioning.goal_dim={conditioning.goal_dim}, but the goals have {goal_dim} numbers.")
    conditioning.goal_dim = goal_dim
    name = get_policy_name_from_config(command.policy)
    chosen = [(source.store, source.training) for source in data.sources]
    statistics = with_relative_poses(data.statistics, command.policy, data.spec, chosen)
    policy = build_policy(name, command.policy, data.spec, statistics, encoder)
    policy.goals = data.goals
    weights = None if deferred is None else _encoder_weights(policy, deferred.weights)
    if command.initial_policy is not None:
        weights = _load_policy_weights(command.initial_policy, policy)
    if deferred is None:  # before the features of its encoder are cached
        materialise(policy.to(device), weights or ())
        weights = None
    else:
        for part in policy.encoders:
            move_to_meta(part)
    return NewPolicy(policy=policy, encoder=encoder, views=views, weights=weights)


def _check_crop(conditioning: ConditioningConfig, spec: DemoSpec) -> None:
    """Raise UserError for a crop that leaves out most of an image, such as a recipe's on images of another size."""
    if conditioning.crop_shape is None:
        return
    height, width = conditioning.crop_shape
    for name in conditioning.cameras:
        camera = spec.cameras.get(name)
        if camera is not None and (share := height * width / (camera.height * camera.width)) < SMALLEST_CROP_SHARE:
            raise UserError(
                f"policy.conditioning.crop_shape=[{height},{width}] would leave {share:.1%} of the {camera.height} x "
                f"{camera.width} pixels of camera {name!r}; recipes crop about a tenth of each side. Resize the "
                "demonstrations to the size of the recipe's images (`pixio-robot data resize`), or set crop_shape to "
                f"some [{round(0.9 * camera.height)},{round(0.9 * camera.width)}]."
            )


def _cached_views(command: TrainCommand) -> Views | None:
    conditioning = command.policy.conditioning
    if command.encoder.kind is EncoderKind.NONE or command.adapt.mode is not Adaptation.FROZEN:
        if command.cached_views:
            raise UserError("cached_views needs a frozen encoder: set adapt.mode=frozen, or cached_views=0.")
        return None
    if conditioning.changes_images and not command.cached_views:
        return None
    if conditioning.color_jitter is not None:
        raise UserError("Cached views support crops and shifts but not color_jitter: leave color_jitter out.")
    crop = conditioning.crop_shape
    # Views do not depend on the training seed, which only selects among them, so runs share the encoded features.
    return Views(
        count=command.cached_views,
        crop=None if crop is None else (crop[0], crop[1]),
        shift=conditioning.random_shift,
    )


def _load_policy_weights(path: str, policy: Any) -> Weights:
    """Weights of a trained policy, including feature standardisation, under the parameter names of `policy`."""
    _check_pose_representations(path, policy)
    saved = read_weights(policy_directory(path) / WEIGHTS)
    state_dict = policy.state_dict()
    expected = strip_adapters(state_dict) if has_adapters(policy) else state_dict
    different = sorted(expected.keys() ^ saved.keys()) or [n for n in expected if expected[n].shape != saved[n].shape]
    if different:
        raise UserError(
            f"initial_policy={path} does not have the shape of the policy to train: {', '.join(different[:3])} differ."
        )
    return _rename_weights(policy, saved.items())


def _check_pose_representations(path: str, policy: ChunkPolicy) -> None:
    """Raise UserError if the trained policy sees or predicts poses in another way: its weights would fit all the same,
    and so would its normalisation, which is loaded with them."""
    saved_config = read_policy_config(policy_directory(path))["config"]
    for prefix, config, saved, name in (
        ("policy", policy.config, saved_config, "action_pose_repr"),
        ("policy.conditioning", policy.config.conditioning, saved_config["conditioning"], "obs_pose_repr"),
    ):
        if (before := saved.get(name, ABSOLUTE)) != (now := getattr(config, name)):
            raise UserError(f"initial_policy={path} was trained with {prefix}.{name}={before}, not {now}: set it too.")


def _encoder_weights(policy: Any, weights: Callable[[], Weights]) -> Weights:
    """Encoder weights for each encoder of the policy, under the parameter names of `policy`."""
    names = [name for name, _ in named_encoders(policy)]
    return _rename_weights(policy, (pair for name in names for pair in add_prefix(f"{name}.", weights())))


def _rename_weights(policy: Any, weights: Weights) -> Weights:
    """Rename weights to the parameter names of `policy`: adapters rename the parameters that they wrap."""
    names = {name.replace(BASE, "."): name for name in policy.state_dict()}
    return ((names[name], tensor) for name, tensor in weights)
