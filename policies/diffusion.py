"""Diffusion policy (Chi et al., IJRR 2024): a chunk is drawn by taking noise away, given what was seen."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pixio_robot.data.stats import Statistics
from pixio_robot.types import DemoSpec
from policies.config import DiffusionConfig
from policies.generative import GenerativePolicy
from policies.noise import RowNoise
from policies.samplers import draw
from policies.schedules import NoiseSchedule


class DiffusionPolicy(GenerativePolicy):
    """Trained with DDPM noise; sampled by DDPM in all steps, or by DDIM or DPM-Solver++ in few."""

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
            clip_sample=1.0 if config.clip_sample else None,
        )

    def errors(self, seen: Tensor, actions_bna: Tensor, is_pad_bn: Tensor) -> Tensor:
        steps_b = torch.randint(self.schedule.num_steps, (len(actions_bna),), device=actions_bna.device)
        noise_bna = torch.randn_like(actions_bna)
        noisy_bna = self.schedule.add_noise(actions_bna, noise_bna, steps_b)
        predicted_bna = self.denoiser(noisy_bna, steps_b, seen)
        return (predicted_bna - self.schedule.target(actions_bna, noise_bna, steps_b)) ** 2

    def sample(self, seen: Tensor, seeds: Sequence[int] | None) -> Tensor:
        return draw(
            self.config.sampler,
            self.schedule,
            lambda noisy_bna, steps_b: self.denoiser(noisy_bna, steps_b, seen),
            RowNoise(seeds, seen),
            (self.chunk, self.spec.action_dim),
            self.config.inference_steps,
        )
