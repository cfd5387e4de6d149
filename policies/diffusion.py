"""Diffusion policy (Chi et al., IJRR 2024): a chunk is sampled by iterative denoising, given the observation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pixio_robot.data.stats import Statistics
from pixio_robot.fields import number, one_of
from pixio_robot.types import DemoSpec
from policies.config import check_setting
from policies.generative import GenerativeConfig, GenerativePolicy
from policies.noise_schedules import BETAS, PREDICTIONS, SAMPLERS, NoiseSchedule
from policies.samplers import run_sampler


@dataclasses.dataclass(kw_only=True)
class DiffusionConfig(GenerativeConfig):
    """A denoiser of action chunks, its noise schedule and its sampler (diffusion policy, Chi et al., IJRR)."""

    train_steps: int = number(100, at_least=1)
    """Diffusion steps (noise levels) in training."""
    inference_steps: int = number(10, at_least=1)
    """Sampling steps of ddim and dpm_solver; ddpm always takes all `train_steps`."""
    sampler: str = one_of("ddim", SAMPLERS)
    """Sampling algorithm."""
    betas: str = one_of("squaredcos_cap_v2", BETAS)
    """Noise schedule."""
    beta_start: float = number(1e-4, above=0, below=1)
    """First beta of the `linear` schedule; squaredcos_cap_v2 ignores it."""
    beta_end: float = number(0.02, above=0, below=1)
    """Last beta of the `linear` schedule."""
    prediction: str = one_of("sample", PREDICTIONS)
    """What the network predicts: the clean chunk (sample), the noise (epsilon), or the velocity (v_prediction).
    Diffusion policy was published with epsilon; sample takes far fewer updates (docs/results.md, and Ze et al., RSS
    2024, 3D Diffusion Policy)."""
    clip_sample: bool = True
    """Clip the predicted clean chunk to [-1, 1] in every sampling step; needs action_normalisation=min_max."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_setting(
            self.inference_steps <= self.train_steps,
            f"inference_steps = {self.inference_steps} must be at most train_steps = {self.train_steps}.",
        )
        check_setting(
            self.beta_start <= self.beta_end,
            f"beta_start = {self.beta_start} must be at most beta_end = {self.beta_end}.",
        )
        check_setting(
            not self.clip_sample or self.action_normalisation == "min_max",
            "clip_sample clips normalised actions to [-1, 1], which requires action_normalisation = min_max: with "
            f"{self.action_normalisation}, set clip_sample to false.",
        )


class DiffusionPolicy(GenerativePolicy):
    """Trained with DDPM noise; sampled by DDPM in all steps, or by DDIM or DPM-Solver++ in fewer."""

    config_class = DiffusionConfig
    config: DiffusionConfig

    def __init__(self, config: DiffusionConfig, spec: DemoSpec, statistics: Statistics, encoder: nn.Module | None):
        super().__init__(config, spec, statistics, encoder)
        self.schedule = NoiseSchedule(
            num_steps=config.train_steps,
            betas=config.betas,
            beta_start=config.beta_start,
            beta_end=config.beta_end,
            prediction=config.prediction,
            clip_sample=config.clip_sample,
        )

    def errors(self, seen: Tensor, actions_bna: Tensor, ignored_bn: Tensor) -> Tensor:
        steps_b = torch.randint(self.schedule.num_steps, (len(actions_bna),), device=actions_bna.device)
        noise_bna = torch.randn_like(actions_bna)
        noisy_bna = self.schedule.add_noise(actions_bna, noise_bna, steps_b)
        predicted_bna = self.denoiser(noisy_bna, steps_b, seen)
        return (predicted_bna - self.schedule.target(actions_bna, noise_bna, steps_b)) ** 2

    def sample(self, seen: Tensor, seeds: Sequence[int] | None) -> Tensor:
        return run_sampler(
            self.config.sampler,
            self.schedule,
            lambda noisy_bna, steps_b: self.denoiser(noisy_bna, steps_b, seen),
            self.draw_noise(seen, seeds),
            (self.chunk, self.spec.action_dim),
            self.config.inference_steps,
        )
