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


def draw(
    sampler: str, schedule: NoiseSchedule, denoise: Denoise, noise: RowNoise, shape: tuple[int, int], count: int
) -> Tensor:
    """A sample (b, *shape) from the named sampler in `count` steps; `ddpm` takes all steps of the schedule."""
    noisy = noise.normal(*shape)

    def at(step: int, value: Tensor) -> Tensor:
        return denoise(value, torch.full((len(value),), step, device=value.device))

    match sampler:
        case "ddpm":
            steps = schedule.inference_steps(schedule.num_steps)
            # All at once: drawing and copying to the device in every step would make a GPU wait for the host.
            fresh = noise.normal(len(steps), *shape)
            for index, step in enumerate(steps):
                noisy = schedule.ddpm(at(step, noisy), noisy, step, fresh[:, index])
            return noisy
        case "ddim":
            steps = schedule.inference_steps(count)
            for step, following in zip(steps, [*steps[1:], None], strict=True):
                noisy = schedule.ddim(at(step, noisy), noisy, step, following)
            return noisy
        case "dpm_solver":
            return dpm_solver(schedule, at, noisy, count)
    raise unknown_name("sampler", sampler, SAMPLERS)


def dpm_solver(schedule: NoiseSchedule, at: Callable[[int, Tensor], Tensor], noisy: Tensor, count: int) -> Tensor:
    """DPM-Solver++(2M): second order in half the log signal-to-noise ratio, with one network call per step.

    The first step has no predecessor and the last ends without noise; both are first order.
    """
    steps = schedule.linspace_steps(count)
    # Python floats: reading them from a GPU would make the host wait in every step.
    signal = {step: math.sqrt(schedule.signal_values[step]) for step in steps}
    spread = {step: math.sqrt(1 - schedule.signal_values[step]) for step in steps}
    half_log_snr = {step: math.log(signal[step] / spread[step]) for step in steps}
    earlier: tuple[Tensor, float] | None = None
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        clean, _ = schedule.clean_and_noise(at(step, noisy), noisy, step)
        if following is None:
            return clean
        stride = half_log_snr[following] - half_log_snr[step]
        aim = clean
        if earlier is not None:
            clean_before, stride_before = earlier
            aim = clean + stride / (2 * stride_before) * (clean - clean_before)
        noisy = spread[following] / spread[step] * noisy - signal[following] * math.expm1(-stride) * aim
        earlier = clean, stride
    return noisy
