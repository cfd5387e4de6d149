"""Diffusion policy (Chi et al., IJRR 2024): a chunk is drawn by taking noise away, given what was seen."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pixio_robot.data.stats import Statistics
from pixio_robot.types import DemoSpec
from policies.base import ChunkPolicy
from policies.config import DiffusionConfig
from policies.denoisers import build_denoiser
from policies.schedules import NoiseSchedule


class DiffusionPolicy(ChunkPolicy):
    """Trained with DDPM noise, sampled by DDIM in few steps or by DDPM in all of them.

    The encoder runs once per observation; only the small denoiser runs once per step.
    """

    def __init__(self, config: DiffusionConfig, spec: DemoSpec, statistics: Statistics, encoder: nn.Module | None):
        super().__init__(config, spec, statistics, encoder)
        self._diffusion = config
        self.schedule = NoiseSchedule(
            num_steps=config.train_steps,
            betas=config.betas,
            beta_start=config.beta_start,
            beta_end=config.beta_end,
            prediction=config.prediction,
            clip_sample=1.0 if config.clip_sample else None,
        )
        self.denoiser = build_denoiser(config.denoiser, config.horizon, spec.action_dim, self.conditioning.out_dim)

    def _errors(self, condition_bc: Tensor, actions_bna: Tensor) -> Tensor:
        steps_b = torch.randint(self.schedule.num_steps, (len(actions_bna),), device=actions_bna.device)
        noise_bna = torch.randn_like(actions_bna)
        noisy_bna = self.schedule.add_noise(actions_bna, noise_bna, steps_b)
        predicted_bna = self.denoiser(noisy_bna, steps_b, condition_bc)
        return (predicted_bna - self.schedule.target(actions_bna, noise_bna)) ** 2

    def _sample(self, condition_bc: Tensor, seeds: Sequence[int] | None) -> Tensor:
        draw = _RowNoise(seeds, (self.horizon, self.spec.action_dim), condition_bc)
        noisy_bna = draw()
        ancestral = self._diffusion.sampler == "ddpm"
        count = self.schedule.num_steps if ancestral else self._diffusion.inference_steps
        steps = self.schedule.inference_steps(count)
        for step, next_step in zip(steps, [*steps[1:], None], strict=True):
            steps_b = torch.full((len(noisy_bna),), step, device=noisy_bna.device)
            predicted_bna = self.denoiser(noisy_bna, steps_b, condition_bc)
            if ancestral:
                noisy_bna = self.schedule.ddpm(predicted_bna, noisy_bna, step, draw())
            else:
                noisy_bna = self.schedule.ddim(predicted_bna, noisy_bna, step, next_step)
        return noisy_bna


class _RowNoise:
    """Standard normal noise (b, n, a) whose row i depends on seeds[i] and on how often it was drawn, on nothing else.

    Drawn on the CPU, so that a policy does the same on every device.
    """

    def __init__(self, seeds: Sequence[int] | None, shape: tuple[int, int], like: Tensor):
        self._shape = shape
        self._like = like
        self._generators = None if seeds is None else [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self) -> Tensor:
        if self._generators is None:
            noise_bna = torch.randn(len(self._like), *self._shape)
        else:
            noise_bna = torch.stack([torch.randn(self._shape, generator=row) for row in self._generators])
        return noise_bna.to(self._like)
