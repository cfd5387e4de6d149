"""Noise schedules, and single steps of DDPM (Ho et al. 2020) and deterministic DDIM (Song et al. 2021).

Steps count from 0 (almost clean) to num_steps - 1 (almost pure noise). `x` is the clean sample, `noisy` is x at a step.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn


def squared_cosine_betas(num_steps: int, beta_start: float, beta_end: float) -> Tensor:
    """`squaredcos_cap_v2`: squared-cosine schedule, betas capped at .999 (Nichol & Dhariwal 2021, sec. 3.2).

    The cosine determines all betas; start and end are not used.
    """

    def signal_share(position: float) -> float:
        return math.cos((position + 0.008) / 1.008 * math.pi / 2) ** 2

    shares = [signal_share(step / num_steps) for step in range(num_steps + 1)]
    betas = [min(1 - after / before, 0.999) for before, after in itertools.pairwise(shares)]
    return torch.tensor(betas, dtype=torch.float64)


def linear_betas(num_steps: int, beta_start: float, beta_end: float) -> Tensor:
    return torch.linspace(beta_start, beta_end, num_steps, dtype=torch.float64)


BETAS = {"squaredcos_cap_v2": squared_cosine_betas, "linear": linear_betas}
PREDICTIONS = ("epsilon", "sample", "v_prediction")
SAMPLERS = ("ddim", "ddpm", "dpm_solver")


class NoiseSchedule(nn.Module):
    """Adds noise to samples, and removes it one step at a time."""

    betas: Tensor
    signal: Tensor

    def __init__(
        self,
        *,
        num_steps: int,
        betas: str,
        beta_start: float,
        beta_end: float,
        prediction: str,
        clip_sample: bool,
    ):
        """`prediction`: what the network predicts: the noise, the sample, or the velocity (Salimans & Ho 2022).
        `clip_sample`: clip x to [-1, 1] at every step."""
        super().__init__()
        self.num_steps = num_steps
        self.prediction = prediction
        self.clip_sample = clip_sample
        values = BETAS[betas](num_steps, beta_start, beta_end)
        self.register_buffer("betas", values.float(), persistent=False)
        # The product of (1 - beta): the fraction of a noisy sample's variance that is signal.
        signal = torch.cumprod(1 - values, 0).float()
        self.register_buffer("signal", signal, persistent=False)
        self.signal_values: list[float] = signal.tolist()

    def add_noise(self, x_bna: Tensor, noise_bna: Tensor, steps_b: Tensor) -> Tensor:
        """Each row of the clean samples at its own step."""
        signal_b11 = self.signal[steps_b][:, None, None]
        return signal_b11.sqrt() * x_bna + (1 - signal_b11).sqrt() * noise_bna

    def target(self, x_bna: Tensor, noise_bna: Tensor, steps_b: Tensor) -> Tensor:
        """The training target of the network."""
        if self.prediction == "epsilon":
            return noise_bna
        if self.prediction == "sample":
            return x_bna
        signal_b11 = self.signal[steps_b][:, None, None]
        return signal_b11.sqrt() * noise_bna - (1 - signal_b11).sqrt() * x_bna

    def trailing_steps(self, count: int) -> list[int]:
        """`count` evenly spaced steps in descending order, from the last one (diffusers' `trailing` spacing): sampling
        starts from pure noise, which an earlier step does not expect (Lin et al., WACV 2024, sec. 3.3)."""
        return [round(self.num_steps * left / count) - 1 for left in range(count, 0, -1)]

    def linspace_steps(self, count: int) -> list[int]:
        """`count` steps in descending order from the last one, with the sample itself as step 0 (diffusers'
        `linspace`); fewer if neighbours would round to the same step."""
        exact = torch.linspace(0, self.num_steps - 1, count + 1, dtype=torch.float64)
        return sorted({int(step) for step in exact.round()[1:].tolist()}, reverse=True)

    def clean_and_noise(self, predicted: Tensor, noisy: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The clean sample (clipped) and the noise in `noisy` that `predicted` implies."""
        signal = self.signal[step]
        if self.prediction == "epsilon":
            noise = predicted
            x = (noisy - (1 - signal).sqrt() * noise) / signal.sqrt()
        elif self.prediction == "v_prediction":
            x = signal.sqrt() * noisy - (1 - signal).sqrt() * predicted
            noise = signal.sqrt() * predicted + (1 - signal).sqrt() * noisy
        else:
            x = predicted
            noise = (noisy - signal.sqrt() * x) / (1 - signal).sqrt()
        return (x.clamp(-1, 1) if self.clip_sample else x), noise

    def ddim(self, predicted: Tensor, noisy: Tensor, step: int, next_step: int | None) -> Tensor:
        """The deterministic step (eta = 0) from `step` to `next_step`; None: to the clean sample."""
        x, noise = self.clean_and_noise(predicted, noisy, step)
        if next_step is None:
            return x
        signal = self.signal[next_step]
        return signal.sqrt() * x + (1 - signal).sqrt() * noise

    def ddpm(self, predicted: Tensor, noisy: Tensor, step: int, noise: Tensor) -> Tensor:
        """The ancestral sampling step from `step` to `step` - 1 with the posterior variance (`fixed_small`)."""
        x, _ = self.clean_and_noise(predicted, noisy, step)
        if step == 0:
            return x
        signal, signal_before, beta = self.signal[step], self.signal[step - 1], self.betas[step]
        weight_x = signal_before.sqrt() * beta / (1 - signal)
        weight_noisy = (1 - beta).sqrt() * (1 - signal_before) / (1 - signal)
        variance = beta * (1 - signal_before) / (1 - signal)
        return weight_x * x + weight_noisy * noisy + variance.sqrt() * noise
