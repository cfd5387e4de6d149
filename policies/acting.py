"""How a trained policy is to act: as its configuration says, or otherwise."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from pixio_robot.errors import UserError

if TYPE_CHECKING:  # commands that are only asked for their settings need no torch
    from policies.base import ChunkPolicy


NO_ENSEMBLE = -1.0


@dataclasses.dataclass(kw_only=True)
class ActingConfig:
    """What may be chosen anew of a trained policy; null: as its own configuration says."""

    execute: int | None = None
    """Actions of each predicted chunk that are carried out before the policy looks again; null: as trained."""
    ensemble_weight: float | None = None
    """Temporal ensembling, see policy.ensemble_weight of `train`; -1: none; null: as trained."""
    inference_steps: int | None = None
    """Steps of the sampler, for policies that draw their actions; null: as trained."""
    noise_seed: int = 0
    """For policies that draw their actions: another number plays the same initial states with other noise, and
    changes nothing for the others."""


def act_as(policy: ChunkPolicy, acting: ActingConfig) -> None:
    """Take the choices up in the policy's configuration. Raises UserError where it cannot act so."""
    if acting.inference_steps is not None:
        set_inference_steps(policy, acting.inference_steps)
    config = policy.config
    if acting.execute is not None:
        config = dataclasses.replace(config, execute=acting.execute)
    if acting.ensemble_weight is not None:
        weight = None if acting.ensemble_weight == NO_ENSEMBLE else acting.ensemble_weight
        config = dataclasses.replace(config, ensemble_weight=weight)
    policy.config = config


def set_inference_steps(policy: ChunkPolicy, steps: int) -> None:
    """Let a trained policy draw its actions in that many steps.

    Raises UserError for one that draws none, or not in any number but one, and for a number that does not fit.
    """
    config = policy.config
    if not (policy.draws and hasattr(config, "inference_steps")):
        raise UserError(f"inference_steps={steps} is for policies that draw actions from noise, not for this one.")
    if getattr(config, "sampler", "") == "ddpm":
        raise UserError("ddpm takes as many steps as it was trained with; set policy.sampler=ddim to train for fewer.")
    changed: Any = {"inference_steps": steps}  # which not every policy's config has
    policy.config = dataclasses.replace(config, **changed)


def words_of_noise(policy: ChunkPolicy, acting: ActingConfig) -> str:
    """That a noise was chosen which the policy does not draw; empty where it does. No error: a sweep over noises may
    hold policies of both kinds."""
    if policy.draws or not acting.noise_seed:
        return ""
    return f"noise_seed={acting.noise_seed} changes nothing: this policy draws no noise"


def acting_text(policy: ChunkPolicy, acting: ActingConfig) -> str:
    """For results: how the policy acted, the sampler's steps where they were chosen, and its noise where it is not the
    usual one and the policy draws any."""
    config = policy.config
    ensemble = "" if config.ensemble_weight is None else f", ensemble_weight {config.ensemble_weight}"
    steps = "" if acting.inference_steps is None else f", inference_steps {acting.inference_steps}"
    noise = f", noise_seed {acting.noise_seed}" if acting.noise_seed and policy.draws else ""
    return f"{config.executed} actions of each chunk{ensemble}{steps}{noise}"
