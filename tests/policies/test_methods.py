"""Every method on a task with two right answers: whoever can have several modes must find both, and mean it."""

import dataclasses

import pytest
import torch

from pixio_robot.errors import UserError
from pixio_robot.types import Batch, Observation
from policies.acting import ActingConfig, apply_acting_config, describe_acting
from policies.config import ConditioningConfig, DenoiserConfig
from policies.diffusion import DiffusionConfig
from policies.flow import FlowConfig
from policies.networks.mixture import MixtureConfig, MixtureHead
from policies.noise import RowNoise
from policies.registry import POLICIES, build_policy
from policies.shortcut import ShortcutConfig

KL = torch.distributions.kl_divergence
Normal = torch.distributions.Normal

HORIZON = 8
STEPS = {"bc_gmm": 120, "bc_rnn": 400, "diffusion": 1600, "flow": 500, "shortcut": 1200}
WAY = 0.8


def two_ways(world, count: int, seed: int) -> Batch:
    """Left or right by the toss of a coin, all the way through the chunk; the second dimension follows the state."""
    generator = torch.Generator().manual_seed(seed)
    state = torch.rand(count, 2, 2, generator=generator) - 0.5
    actions = torch.zeros(count, HORIZON, 3)
    actions[:, :, 0] = WAY * (2 * torch.randint(2, (count, 1), generator=generator) - 1)
    actions[:, :, 1] = 0.8 * state[:, -1, :1]
    # Not a constant: a Gaussian's log-likelihood of one has no bound and would drown the rest.
    actions[:, :, 2] = torch.rand(count, 1, generator=generator) - 0.5
    return Batch(Observation({}, state), actions, torch.zeros(count, HORIZON, dtype=torch.bool))


def fit(policy, batches: list[Batch], steps: int) -> tuple[float, float]:
    """Mean loss of the first and of the last tenth."""
    optimiser = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, steps)
    policy.train()
    losses = []
    for step in range(steps):
        loss, _ = policy.loss(batches[step % len(batches)])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    policy.eval()
    share = steps // 10
    return sum(losses[:share]) / share, sum(losses[-share:]) / share


def test_a_shortcut_learns_long_steps_on_rows_of_every_store(make, world, monkeypatch):
    """A batch of several stores holds the rows of one beside each other."""
    policy = make("shortcut", cameras=[])
    learned: list[float] = []

    def two_halves(point_bna, time_b, stride_b, seen):
        learned.extend(seen[:, 0].tolist())
        return torch.zeros_like(point_bna)

    monkeypatch.setattr(policy, "_mean_half_step_velocity", two_halves)
    seen, actions = torch.arange(16.0)[:, None].expand(-1, policy.conditioning.out_dim), torch.zeros(16, HORIZON, 3)
    for _ in range(40):
        policy.errors(seen, actions, torch.zeros(16, HORIZON, dtype=torch.bool))
    assert len(learned) == 40 * 4
    assert set(learned) == set(range(16))


def test_a_long_step_is_the_mean_of_two_halves_without_gradient(make, world, monkeypatch):
    policy = make("shortcut", cameras=[])
    seen = torch.zeros(3, policy.conditioning.out_dim)
    point, time = torch.randn(3, HORIZON, 3), torch.tensor([0.0, 0.25, 0.5])
    stride = torch.tensor([1.0, 0.25, 2 / policy.config.finest_steps])
    assert not policy._mean_half_step_velocity(point, time, stride, seen).requires_grad
    told = []

    def velocity(point_bna, time_b, stride_b, seen):
        told.append((time_b, stride_b))
        return point_bna + time_b[:, None, None]

    monkeypatch.setattr(policy, "_velocity", velocity)
    found = policy._mean_half_step_velocity(point, time, stride, seen)
    half, time_b11 = stride[:, None, None] / 2, time[:, None, None]
    first = point + time_b11
    torch.testing.assert_close(found, (first + (point + half * first) + time_b11 + half) / 2)
    torch.testing.assert_close([each for each, _ in told], [time, time + stride / 2])
    for _, each in told:
        torch.testing.assert_close(each, torch.tensor([0.5, 0.125, 0.0]))  # the shortest are steps of the flow


def test_long_steps_of_every_stride_begin_where_they_can_be_taken(make, world, monkeypatch):
    policy, drawn = make("shortcut", cameras=[]), []
    monkeypatch.setattr(
        policy, "_mean_half_step_velocity", lambda point, time, stride, seen: drawn.append((time, stride)) or point
    )
    seen, actions = torch.zeros(64, policy.conditioning.out_dim), torch.zeros(64, HORIZON, 3)
    for _ in range(20):
        policy.errors(seen, actions, torch.zeros(64, HORIZON, dtype=torch.bool))
    time, stride = (torch.cat(each) for each in zip(*drawn, strict=True))
    assert sorted(set(stride.tolist())) == [2.0**-power for power in range(6, -1, -1)]
    assert torch.equal(time / stride, (time / stride).round())
    assert ((time >= 0) & (time + stride <= 1)).all()
    assert len(set(time.tolist())) > 20


@pytest.mark.parametrize("count", [1, 4, 128])
def test_a_shortcut_is_told_how_long_its_steps_are(make, world, monkeypatch, count):
    policy, told = make("shortcut", cameras=[]), []
    policy.config.inference_steps = count
    monkeypatch.setattr(
        policy, "_velocity", lambda point, time, stride, seen: told.append((time[0], stride[0])) or point * 0
    )
    policy.sample(torch.zeros(2, policy.conditioning.out_dim), [0, 1])
    assert [float(time) for time, _ in told] == pytest.approx([step / count for step in range(count)])
    assert {float(stride) for _, stride in told} == {0.0 if count == policy.config.finest_steps else 1 / count}


@pytest.mark.parametrize(
    ("name", "settings"), [("diffusion", {}), ("diffusion", {"sampler": "ddpm"}), ("flow", {}), ("shortcut", {})]
)
def test_less_noise_brings_samples_closer_together(make, world, name, settings):
    policy, observation = make(name, cameras=[]), world.windows(1, 0).observation
    policy.config = dataclasses.replace(policy.config, **settings)
    spreads = []
    for scale in (1.0, 0.5, 0.0):
        apply_acting_config(policy, ActingConfig(noise_scale=scale))
        chunks = torch.stack([policy.act(observation, [seed])[0] for seed in range(20)])
        spreads.append(chunks.std(0).mean())
    assert spreads[0] > spreads[1] > spreads[2] == 0
    assert describe_acting(policy, ActingConfig(noise_scale=0.5)).endswith("of each chunk, noise_scale 0.5")


@pytest.mark.parametrize("name", ["diffusion", "flow"])
def test_every_row_learns_at_a_noise_level_of_its_own_and_none_is_left_out(make, world, monkeypatch, name):
    policy, levels = make(name, cameras=[]), []
    monkeypatch.setattr(policy.denoiser, "forward", lambda noisy, steps, seen: levels.append(steps) or noisy)
    seen, actions = torch.zeros(256, policy.conditioning.out_dim), torch.zeros(256, HORIZON, 3)
    torch.manual_seed(0)
    for _ in range(10):
        policy.errors(seen, actions, torch.zeros(256, HORIZON, dtype=torch.bool))
    assert all(len(set(steps.tolist())) > 60 for steps in levels)
    found = torch.cat(levels)
    if name == "diffusion":
        assert sorted(set(found.tolist())) == list(range(100))
    else:
        assert (found.min() < 1, found.max() > 99, found.max() <= 100) == (True, True, True)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(STEPS))
def test_finds_both_ways_and_keeps_to_one(make, world, name):
    policy = make(name, cameras=[])
    first, last = fit(policy, [two_ways(world, 64, seed) for seed in range(30)], STEPS[name])
    assert last < first
    test = two_ways(world, 60, 99)
    acted = policy.act(test.observation, list(range(60)))
    way = acted[:, :, 0]
    assert (way.abs() > WAY / 2).float().mean() > 0.7  # the mean of the two would be 0
    right = (way.mean(dim=1) > 0).float().mean()
    assert 0.25 < right < 0.75
    same_way = (way.sign() == way[:, :1].sign()).all(dim=1)
    assert same_way.float().mean() > 0.9
    assert (acted[:, :, 1] - test.actions[:, :, 1]).abs().mean() < 0.08
    if name == "shortcut":  # that was one step; many lead from the same noise the same way
        policy.config.inference_steps = 64
        agree = policy.act(test.observation, list(range(60)))[:, :, 0].mean(1).sign() == way.mean(1).sign()
        assert agree.float().mean() > 0.8


def test_act_learns_the_part_with_one_answer(make, world):
    """Its latent takes the coin up in training; acting at the latent's mean it stands between the two."""
    policy = make("act", cameras=[])
    first, last = fit(policy, [two_ways(world, 64, seed) for seed in range(4)], 100)
    assert last < 0.5 * first
    test = two_ways(world, 40, 99)
    acted = policy.act(test.observation)
    assert torch.equal(policy.act(test.observation, list(range(40))), acted)
    assert (acted[:, :, 1] - test.actions[:, :, 1]).abs().mean() < 0.06


def test_the_divergence_of_acts_latent_counts_once_a_window(make, world, monkeypatch):
    policy, batch = make("act", cameras=[]), two_ways(world, 3, 0)
    batch.ignored[0, 2:] = True
    mean, log_variance = torch.randn(3, 32), torch.randn(3, 32)
    latents = []
    monkeypatch.setattr(policy.posterior, "forward", lambda *_: (mean, log_variance))
    right = policy.actions(batch.actions)
    monkeypatch.setattr(policy, "_decode", lambda seen, latent: latents.append(latent) or right)
    divergence = KL(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(1).mean()
    loss, _ = policy.loss(batch)
    torch.testing.assert_close(loss, policy.config.kl_weight * divergence)
    torch.manual_seed(0)
    for _ in range(2000):
        policy.errors(torch.zeros(3, 1, 32), right, batch.ignored)
    drawn = torch.stack(latents)
    torch.testing.assert_close(drawn.mean(0), mean, atol=0.2, rtol=0)
    torch.testing.assert_close(drawn.std(0), (log_variance / 2).exp(), atol=0.05, rtol=0.1)


def test_act_acts_with_its_latent_at_zero(make, world):
    policy, batch = make("act", cameras=[]).eval(), two_ways(world, 3, 0)
    before = policy.act(batch.observation)
    with torch.no_grad():
        policy.from_latent.weight.mul_(-3)
    assert torch.equal(policy.act(batch.observation), before)
    with torch.no_grad():
        policy.from_latent.bias.add_(1)
    assert not torch.equal(policy.act(batch.observation), before)


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_flow_solvers_follow_a_known_field(make, world, solver):
    """On the field v = t the end is start + 1/2: Heun's method is exact, Euler's misses by half a step."""
    policy = make("flow", cameras=[]).eval()
    policy._velocity = lambda point, time, seen: time[:, None, None].expand_as(point)
    policy.config.solver, policy.config.inference_steps = solver, 10
    observation = two_ways(world, 3, 0).observation
    seen = policy.encode_observation(observation, augment=False)
    start = RowNoise([1, 2, 3], seen).normal(HORIZON, 3)
    moved = (policy.sample(seen, [1, 2, 3]) - start).mean().item()
    missed_by = 0.05 if solver == "euler" else 0.005  # Heun's last step is Euler's
    assert moved == pytest.approx(0.5 - missed_by, abs=1e-4)


@pytest.mark.parametrize("use_tanh", [False, True])
def test_mixture_density_integrates_to_one(use_tanh):
    torch.manual_seed(0)
    head = MixtureHead(MixtureConfig(num_modes=3, use_tanh=use_tanh), 4, steps=1, action_dim=1)
    edge = 1.0 if use_tanh else 8.0
    grid = torch.linspace(-edge, edge, 40001)[1:-1]
    mixture = head(torch.randn(1, 4).expand(len(grid), -1))
    nll = head.negative_log_likelihood(mixture, grid[:, None, None], torch.zeros(len(grid), 1, dtype=torch.bool))
    assert torch.trapezoid((-nll[:, 0, 0]).exp(), grid).item() == pytest.approx(1.0, abs=2e-2)


def test_mixture_draws_modes_by_weight_and_row_by_row():
    head = MixtureHead(MixtureConfig(num_modes=2, low_noise_eval=False), 1, steps=2, action_dim=1)
    with torch.no_grad():
        head.logits.bias.copy_(torch.tensor([0.25, 0.75]).log())
        head.logits.weight.zero_()
    features = torch.zeros(400, 1)
    mixture = head(features)
    mixture = mixture._replace(
        means=torch.tensor([-0.5, 0.5])[None, :, None, None].expand(400, -1, 2, 1), stds=mixture.stds * 0 + 0.01
    )
    drawn = head.sample(mixture, RowNoise(range(400), features))
    assert (drawn[:, 0, 0] > 0).float().mean().item() == pytest.approx(0.75, abs=0.06)
    assert (drawn[:, 0, 0].sign() == drawn[:, 1, 0].sign()).all()
    assert drawn[:, 0, 0].unique().numel() > 390


def test_a_chunks_likelihood_is_divided_among_its_real_steps():
    head = MixtureHead(MixtureConfig(num_modes=1), 4, steps=4, action_dim=2)
    mixture, actions = head(torch.randn(3, 4)), torch.rand(3, 4, 2) - 0.5
    ignored = torch.tensor([[False] * 4, [False, False, True, True], [True] * 4])
    found = head.negative_log_likelihood(mixture, actions, ignored)[:, :, 0]
    each_step = -Normal(mixture.means[:, 0], mixture.stds[:, 0]).log_prob(actions).sum(-1)
    expected = torch.stack([each_step[0].sum() / 4, each_step[1, :2].sum() / 2, torch.zeros(())])
    torch.testing.assert_close(found, expected[:, None].expand(-1, 4), rtol=1e-4, atol=1e-5)


def test_a_mode_is_never_narrower_than_it_may_be():
    head = MixtureHead(MixtureConfig(min_std=0.01), 4, steps=2, action_dim=3)
    torch.nn.init.constant_(head.stds.bias, -100.0)
    torch.testing.assert_close(head(torch.zeros(1, 4)).stds, torch.full((1, 5, 2, 3), 0.01))


def test_padding_is_hidden_from_act_and_mixtures(make, world):
    for name in ("act", "bc_gmm", "bc_rnn"):
        policy = make(name, cameras=[]).eval()
        batch = two_ways(world, 4, 0)
        batch.ignored[:, 5:] = True
        torch.manual_seed(1)
        before, _ = policy.loss(batch)
        batch.actions[:, 5:] = 1e3
        torch.manual_seed(1)
        torch.testing.assert_close(policy.loss(batch)[0], before)


@pytest.mark.parametrize("name", ["diffusion", "flow", "shortcut"])
def test_the_transformer_reads_frames(world, encoder, small_config, name):
    denoiser = DenoiserConfig(name="transformer", widths=[32, 32], dropout=0.0)
    conditioning = ConditioningConfig(cameras=["front"])
    policy = build_policy(
        name, small_config(name, conditioning, denoiser=denoiser), world.spec, world.statistics, encoder
    )
    assert policy.reads_frames
    batch = world.windows(4, 0)
    policy.loss(batch)[0].backward()
    assert all(p.grad is not None for n, p in policy.named_parameters() if p.requires_grad)
    acted = policy.eval().act(batch.observation, [1, 2, 3, 4])
    assert acted.shape == (4, HORIZON, 3)


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_the_encoder_runs_once_a_frame_whatever_the_method(make, world, name):
    policy = make(name, cameras=["front", "hand.top"]).eval()
    calls = []
    handle = policy.conditioning.encoder.register_forward_hook(lambda *_: calls.append(1))
    policy.act(world.windows(2, seed=0).observation, [0, 1])
    handle.remove()
    assert len(calls) == 2  # once for each camera


@pytest.mark.parametrize(
    ("make_config", "message"),
    [
        (lambda: FlowConfig(solver="rk4"), "heun"),
        (lambda: ShortcutConfig(inference_steps=3), "power of two"),
        (lambda: ShortcutConfig(inference_steps=256), "at most finest_steps"),
        (lambda: POLICIES["bc_gmm"].config(action_normalisation="mean_std"), "min_max"),
        (lambda: POLICIES["act"].config(dim_model=30), "multiple of n_heads"),
        (lambda: DiffusionConfig(denoiser=DenoiserConfig(name="transformer", heads=3)), "heads = 3"),
        (lambda: ConditioningConfig(joint_pooling=True), "attention"),
        (lambda: ConditioningConfig(crop_shape=[76]), "height and a width"),
        (lambda: ConditioningConfig(color_jitter=[0.1, 0.1, 0.1, 0.9]), "four ranges"),
    ],
)
def test_bad_settings_say_what_is_right(make_config, message):
    with pytest.raises(UserError, match=message):
        make_config()
