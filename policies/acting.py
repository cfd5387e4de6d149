"""How a trained policy acts: settings that override its own configuration."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from pixio_robot.errors import UserError

if TYPE_CHECKING:  # commands that only show their settings need no torch
    from policies.base import ChunkPolicy


NO_ENSEMBLE = -1.0


@dataclasses.dataclass(kw_only=True)
class ActingConfig:
    """Overrides for how a trained policy acts; null keeps the policy's own configuration."""

    execute: int | None = None
    """Actions to execute from each predicted chunk before the policy predicts again; null: as trained."""
    ensemble_weight: float | None = None
    """Temporal ensembling, see policy.ensemble_weight of `train`; -1 turns it off; null: as trained."""
    inference_steps: int | None = None
    """Sampling steps, for policies that sample their actions; null: as trained."""
    noise_scale: float | None = None
    """Standard deviation of the sampling noise, 0 to 1, see policy.noise_scale of `train`; null: as trained."""
    noise_seed: int = 0
    """Seed of the sampling noise: a different value replays the same initial states with different noise. No effect on
    deterministic policies."""


def apply_acting_config(policy: ChunkPolicy, acting: ActingConfig) -> None:
    """Apply the overrides to the policy's configuration. Raises UserError if the policy does not support them, or
    cannot act at all: if it is goal-conditioned and has no goals."""
    if policy.config.conditioning.goal_dim and not policy.goals:
        raise UserError(
            "The policy is goal-conditioned but has no goals: set policy.goals = {task: goal vector} before saving it."
        )
    if acting.inference_steps is not None:
        set_inference_steps(policy, acting.inference_steps)
    if acting.noise_scale is not None:
        _set_sampling(policy, "noise_scale", acting.noise_scale)
    config = policy.config
    if acting.execute is not None:
        config = dataclasses.replace(config, execute=acting.execute)
    if acting.ensemble_weight is not None:
        weight = None if acting.ensemble_weight == NO_ENSEMBLE else acting.ensemble_weight
        config = dataclasses.replace(config, ensemble_weight=weight)
    policy.config = config


def set_inference_steps(policy: ChunkPolicy, steps: int) -> None:
    """Set the number of sampling steps of a trained policy.

    Raises UserError if the policy does not sample, if its number of steps is fixed, or if the number is invalid.
    """
    if getattr(policy.config, "sampler", "") == "ddpm":
        raise UserError("ddpm always takes as many steps as in training; for fewer, train with policy.sampler=ddim.")
    _set_sampling(policy, "inference_steps", steps)


def _set_sampling(policy: ChunkPolicy, name: str, value: float) -> None:
    """Change a setting that only the configs of policies have that sample."""
    if not (policy.draws and hasattr(policy.config, name)):
        raise UserError(f"{name}={value} applies only to policies that sample actions from noise.")
    changed: Any = {name: value}
    policy.config = dataclasses.replace(policy.config, **changed)


def explain_unused_noise_seed(policy: ChunkPolicy, acting: ActingConfig) -> str:
    """A note if noise_seed is set for a deterministic policy; otherwise empty. Not an error, because a sweep over noise
    seeds may include policies of both kinds."""
    if policy.draws or not acting.noise_seed:
        return ""
    return f"noise_seed={acting.noise_seed} has no effect: this policy is deterministic"


def describe_acting(policy: ChunkPolicy, acting: ActingConfig) -> str:
    """Description for results of how the policy acted, with what was set of its sampling."""
    config = policy.config
    ensemble = "" if config.ensemble_weight is None else f", ensemble_weight {config.ensemble_weight}"
    steps = "" if acting.inference_steps is None else f", inference_steps {acting.inference_steps}"
    scale = "" if acting.noise_scale is None else f", noise_scale {acting.noise_scale:g}"
    noise = f", noise_seed {acting.noise_seed}" if acting.noise_seed and policy.draws else ""
    return f"{config.executed} actions of each chunk{ensemble}{steps}{scale}{noise}"
