"""The schedules against closed forms, and against `diffusers` where it is installed."""

import math

import pytest
import torch

from policies.noise import RowNoise
from policies.noise_schedules import BETAS, PREDICTIONS, NoiseSchedule
from policies.samplers import run_sampler

SHAPE = (3, 8, 7)


def make_schedule(
    num_steps: int = 100, betas: str = "squaredcos_cap_v2", prediction: str = "epsilon", clip_sample: bool = True
) -> NoiseSchedule:
    return NoiseSchedule(
        num_steps=num_steps,
        betas=betas,
        beta_start=1e-4,
        beta_end=0.02,
        prediction=prediction,
        clip_sample=clip_sample,
    )


@pytest.mark.parametrize("betas", BETAS)
def test_noise_keeps_unit_variance_and_grows(betas):
    schedule = make_schedule(betas=betas)
    x, noise = torch.randn(1, 1000, 8), torch.randn(1, 1000, 8)
    variances = [schedule.add_noise(x, noise, torch.tensor([step])).var().item() for step in (0, 30, 60, 99)]
    assert variances == pytest.approx([1.0] * 4, abs=0.08)
    assert (schedule.signal.diff() < 0).all()
    assert ((schedule.betas > 0) & (schedule.betas <= 0.999)).all()


def test_squared_cosine_signal_is_the_cosine():
    schedule = make_schedule(num_steps=100)
    expected = [math.cos(((step + 1) / 100 + 0.008) / 1.008 * math.pi / 2) ** 2 for step in range(99)]
    expected = torch.tensor(expected) / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    torch.testing.assert_close(schedule.signal[:99], expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("count", [1, 3, 10, 16, 100])
def test_ddim_with_a_perfect_network_returns_the_sample(prediction, count):
    schedule = make_schedule(prediction=prediction, clip_sample=False)
    x, noise = torch.rand(SHAPE) * 2 - 1, torch.randn(SHAPE)
    steps = schedule.trailing_steps(count)
    assert len(steps) == count
    assert steps[0] == 99
    noisy = schedule.add_noise(x, noise, torch.full((3,), steps[0]))
    for step, next_step in zip(steps, [*steps[1:], None], strict=True):
        if next_step is not None:
            on_the_way = schedule.add_noise(x, noise, torch.full((3,), next_step))
        target = schedule.target(x, noise, torch.full((3,), step))
        noisy = schedule.ddim(target, noisy, step, next_step)
        torch.testing.assert_close(noisy, x if next_step is None else on_the_way, rtol=1e-3, atol=1e-3)


def test_ddpm_step_is_the_posterior():
    """Mean and variance of q(x_{t-1} | x_t, x_0) by Bayes' rule on the two Gaussians (Ho et al. 2020, eq. 7)."""
    schedule = make_schedule(betas="linear", prediction="sample", clip_sample=False)
    step, x, noisy = 40, torch.tensor(0.3), torch.tensor(-0.7)
    beta, signal_before = schedule.betas[step].double(), schedule.signal[step - 1].double()
    precision = 1 / (1 - signal_before) + (1 - beta) / beta
    mean = (signal_before.sqrt() * x / (1 - signal_before) + (1 - beta).sqrt() * noisy / beta) / precision
    for noise in (0.0, 1.0, -2.0):
        expected = mean + noise / precision.sqrt()
        got = schedule.ddpm(x, noisy, step, torch.tensor(noise))
        assert got.item() == pytest.approx(expected.item(), rel=1e-4)
    assert schedule.ddpm(x, noisy, 0, torch.tensor(5.0)) == x


@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("clip", [True, False])
def test_agrees_with_diffusers(betas, prediction, clip):
    diffusers = pytest.importorskip("diffusers")
    common = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": betas, "prediction_type": prediction}
    common |= {"num_train_timesteps": 100, "clip_sample": clip}
    ddim, ddpm = diffusers.DDIMScheduler(**common, timestep_spacing="trailing"), diffusers.DDPMScheduler(**common)
    ours = make_schedule(betas=betas, prediction=prediction, clip_sample=clip)
    ddim.set_timesteps(20)
    steps = ours.trailing_steps(20)
    assert steps == ddim.timesteps.tolist()
    for step, next_step in zip(steps, [*steps[1:], None], strict=True):
        predicted, noisy = torch.randn(SHAPE), torch.randn(SHAPE)
        expected = ddim.step(predicted, step, noisy).prev_sample
        torch.testing.assert_close(ours.ddim(predicted, noisy, step, next_step), expected, rtol=1e-4, atol=1e-4)
    for step in range(100):
        predicted, noisy = torch.randn(SHAPE), torch.randn(SHAPE)
        expected = ddpm.step(predicted, step, noisy, generator=torch.Generator().manual_seed(step)).prev_sample
        noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(step))
        torch.testing.assert_close(ours.ddpm(predicted, noisy, step, noise), expected, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("train_steps", [50, 1000])
@pytest.mark.parametrize(
    ("sampler", "count"),
    # DDIM of diffusers assumes counts that divide the number of steps.
    [*(("ddim", count) for count in (1, 2, 5, 25)), *(("dpm_solver", count) for count in (1, 2, 7, 16))],
)
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_whole_samples_agree_with_diffusers(betas, prediction, train_steps, count, sampler):
    diffusers = pytest.importorskip("diffusers")
    common = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": betas, "prediction_type": prediction}
    common["num_train_timesteps"] = train_steps
    if sampler == "ddim":
        theirs = diffusers.DDIMScheduler(**common, clip_sample=False, timestep_spacing="trailing")
    else:
        theirs = diffusers.DPMSolverMultistepScheduler(**common)
    weight = 0.4 * torch.randn(3, 3, generator=torch.Generator().manual_seed(0))

    def denoise(noisy, steps):
        return torch.tanh(noisy @ weight + 0.01 * steps[:, None, None])

    rows = torch.zeros(2)
    ours = make_schedule(num_steps=train_steps, betas=betas, prediction=prediction, clip_sample=False)
    found = run_sampler(sampler, ours, denoise, RowNoise([5, 6], rows), (4, 3), count)
    theirs.set_timesteps(count)
    expected = RowNoise([5, 6], rows).normal(4, 3)
    for step in theirs.timesteps:
        expected = theirs.step(denoise(expected, step.expand(2)), step, expected).prev_sample
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampler", ["ddim", "dpm_solver"])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 34, 51, 60, 99])
def test_any_number_of_steps_gives_the_mean_of_the_data(sampler, count):
    """With the exact denoiser of data from N(mean, deviation^2): E[x | noisy], by Bayes' rule on two Gaussians."""
    mean, deviation, schedule = 0.5, 0.2, make_schedule(prediction="sample")

    def denoise(noisy, steps):
        signal = schedule.signal[steps][:, None, None]
        gain = deviation**2 * signal.sqrt() / (deviation**2 * signal + 1 - signal)
        return mean + gain * (noisy - signal.sqrt() * mean)

    samples = run_sampler(sampler, schedule, denoise, RowNoise(range(500), torch.zeros(500)), (4, 3), count)
    assert samples.mean().item() == pytest.approx(mean, abs=0.02)
    assert samples.std().item() < 1.1 * deviation


def test_ddpm_draws_fresh_noise_in_every_step():
    schedule, rows = make_schedule(num_steps=20), torch.zeros(2)

    def denoise(noisy, steps):
        return 0.3 * noisy

    noise = RowNoise([5, 6], rows)
    expected, fresh = noise.normal(4, 3), noise.normal(20, 4, 3)
    for index, step in enumerate(reversed(range(20))):
        expected = schedule.ddpm(denoise(expected, step), expected, step, fresh[:, index])
    torch.testing.assert_close(run_sampler("ddpm", schedule, denoise, RowNoise([5, 6], rows), (4, 3), 20), expected)


# Made once by diffusers 0.42.1: DDIMScheduler / DDPMScheduler(100 steps, squaredcos_cap_v2, clip_sample), with the
# network's answer 0.25 and the noisy value 0.5 at the step named, going to step - 10 (DDIM) and with zero noise (DDPM).
GOLDEN = {
    ("epsilon", 90): (0.530918, 0.478139),
    ("epsilon", 50): (0.518889, 0.496983),
    ("epsilon", 10): (0.468282, 0.493789),
    ("sample", 90): (0.522172, 0.455728),
    ("sample", 50): (0.473355, 0.487980),
    ("sample", 10): (0.284929, 0.459034),
}


@pytest.mark.parametrize(("case", "expected"), GOLDEN.items())
def test_agrees_with_recorded_diffusers(case, expected):
    prediction, step = case
    schedule = make_schedule(prediction=prediction)
    predicted, noisy = torch.tensor(0.25), torch.tensor(0.5)
    assert schedule.ddim(predicted, noisy, step, step - 10).item() == pytest.approx(expected[0], abs=2e-5)
    assert schedule.ddpm(predicted, noisy, step, torch.tensor(0.0)).item() == pytest.approx(expected[1], abs=2e-5)
