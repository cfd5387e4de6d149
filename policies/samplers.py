"""Samplers: from noise to a sample in any number of steps, given a denoising network.

`denoise(noisy, steps_b)` is called once per step. Sources: DDPM (Ho et al. 2020), DDIM (Song et al. 2021),
DPM-Solver++(2M) (Lu et al. 2022). All agree numerically with `diffusers`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pixio_robot.errors import unknown_name
from policies.noise import RowNoise
from policies.noise_schedules import SAMPLERS, NoiseSchedule

Denoise = Callable[[Tensor, Tensor], Tensor]


def run_sampler(
    sampler: str, schedule: NoiseSchedule, denoise: Denoise, noise: RowNoise, shape: tuple[int, int], count: int
) -> Tensor:
    """A sample (b, *shape) from the named sampler in `count` steps; `ddpm` takes all steps of the schedule."""
    noisy = noise.normal(*shape)

    def predict(step: int, value: Tensor) -> Tensor:
        return denoise(value, torch.full((len(value),), step, device=value.device))

    match sampler:
        case "ddpm":
            steps = schedule.trailing_steps(schedule.num_steps)
            # All at once: drawing and copying to the device in every step would make a GPU wait for the host.
            step_noise = noise.normal(len(steps), *shape)
            for index, step in enumerate(steps):
                noisy = schedule.ddpm(predict(step, noisy), noisy, step, step_noise[:, index])
            return noisy
        case "ddim":
            steps = schedule.trailing_steps(count)
            for step, next_step in zip(steps, [*steps[1:], None], strict=True):
                noisy = schedule.ddim(predict(step, noisy), noisy, step, next_step)
            return noisy
        case "dpm_solver":
            return run_dpm_solver(schedule, predict, noisy, count)
    raise unknown_name("sampler", sampler, SAMPLERS)


def run_dpm_solver(
    schedule: NoiseSchedule, predict: Callable[[int, Tensor], Tensor], noisy: Tensor, count: int
) -> Tensor:
    """DPM-Solver++(2M): second order in half the log signal-to-noise ratio, with one network call per step.

    The first step has no predecessor and the last ends without noise; both are first order.
    """
    steps = schedule.linspace_steps(count)
    # Python floats: reading them from a GPU would make the host wait in every step.
    signal = {step: math.sqrt(schedule.signal_values[step]) for step in steps}
    spread = {step: math.sqrt(1 - schedule.signal_values[step]) for step in steps}
    half_log_snr = {step: math.log(signal[step] / spread[step]) for step in steps}
    previous: tuple[Tensor, float] | None = None
    for step, next_step in zip(steps, [*steps[1:], None], strict=True):
        clean, _ = schedule.clean_and_noise(predict(step, noisy), noisy, step)
        if next_step is None:
            return clean
        stride = half_log_snr[next_step] - half_log_snr[step]
        estimate = clean
        if previous is not None:
            clean_before, stride_before = previous
            estimate = clean + stride / (2 * stride_before) * (clean - clean_before)
        noisy = spread[next_step] / spread[step] * noisy - signal[next_step] * math.expm1(-stride) * estimate
        previous = clean, stride
    return noisy
