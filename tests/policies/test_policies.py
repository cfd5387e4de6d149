"""Loss, learning and noise of every registered policy."""

import dataclasses

import numpy as np
import pytest
import torch

from pixio_robot.data.stats import Range, Statistics
from pixio_robot.errors import UserError
from pixio_robot.types import Batch, Observation
from policies.bc import BCConfig
from policies.config import ConditioningConfig
from policies.diffusion import DiffusionConfig
from policies.registry import POLICIES, build_policy, get_policy_name, register

NAMES = sorted(POLICIES)


def rows(batch: Batch, index) -> Observation:
    observation = batch.observation
    return Observation({name: images[index] for name, images in observation.images.items()}, observation.state[index])


def train(policy, batches, steps: int, lr: float) -> list[float]:
    optimiser = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], lr=lr)
    policy.train()
    losses = []
    for step in range(steps):
        loss, _ = policy.loss(batches[step % len(batches)])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        for group in optimiser.param_groups:
            group["lr"] = lr * (1 - step / steps)
        losses.append(loss.item())
    policy.eval()
    return losses


@pytest.mark.parametrize(("name", "steps"), [("bc", 150), ("diffusion", 500)])
def test_learns_a_function_of_the_state(make, world, name, steps):
    policy = make(name, cameras=[])
    batches = [world.windows(128, seed) for seed in range(4)]
    for batch in batches:
        batch.actions[:, :, :2] = 0.8 * batch.observation.state[:, -1, :1, None]
    losses = train(policy, batches, steps, 3e-3)
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])
    test = world.windows(64, 99)
    expected = test.actions.clone()
    expected[:, :, :2] = 0.8 * test.observation.state[:, -1, :1, None]
    acted = policy.act(test.observation, list(range(64)))
    error = (acted - expected.clamp(policy.actions.low, policy.actions.high)).abs().mean(dim=(0, 1)) / expected.std(
        (0, 1)
    )
    assert error.max() < 0.15


def test_sees_where_the_square_is(make, world):
    """A frozen random encoder, from cached features."""
    policy = make("bc", cameras=["front"])
    batches = [world.windows(64, seed) for seed in range(6)]
    policy.prepare(batch.observation for batch in batches)
    for batch in batches:
        lead = batch.observation.images["front"].shape[:2]
        features = policy.conditioning.encoder(batch.observation.images["front"].flatten(0, 1))
        batch.observation = Observation(
            {}, batch.observation.state, {"front": features.map(lambda x, lead=lead: x.unflatten(0, lead))}
        )
    train(policy, batches, 150, 3e-3)
    test = world.windows(64, 99)
    error = (policy.act(test.observation) - test.actions).abs().mean(dim=(0, 1)) / test.actions.std((0, 1))
    assert error.max() < 0.25


@pytest.mark.parametrize("name", NAMES)
def test_quaternions_among_the_actions_have_length_1(world, small_config, name):
    names = ("dx [m]", *(f"eef_quat_wxyz.{axis}" for axis in "wxyz"), "grip")
    spec, ends = dataclasses.replace(world.spec, action_names=names), np.ones(6)
    state = world.statistics.state
    actions = Range(-ends, ends, 0 * ends, 0.5 * ends, -ends, -ends, 0 * ends, ends, ends)
    config = small_config(name, ConditioningConfig(cameras=[]))
    policy = build_policy(name, config, spec, Statistics(state, actions), None).eval()
    acted = policy.act(world.windows(5, seed=0).observation, [1, 2, 3, 4, 5])
    torch.testing.assert_close(acted[..., 1:5].norm(dim=-1), torch.ones(5, policy.horizon))
    others = acted[..., [0, 5]].norm(dim=-1)
    assert not torch.allclose(others, torch.ones_like(others), atol=0.01)


def test_differences_of_quaternions_keep_their_length(world, small_config):
    names = tuple(f"eef_delta_quat.{axis}" for axis in "xyzw")
    spec, ends = dataclasses.replace(world.spec, action_names=names), np.full(4, 0.04)
    actions = Range(-ends, ends, 0 * ends, 0.3 * ends, -ends, -ends, 0 * ends, ends, ends)
    config = small_config("bc", ConditioningConfig(cameras=[]))
    policy = build_policy("bc", config, spec, Statistics(world.statistics.state, actions), None).eval()
    assert policy.act(world.windows(5, seed=0).observation).abs().max() <= 0.04


@pytest.mark.parametrize("name", NAMES)
def test_ignored_actions_do_not_count(make, world, name):
    policy = make(name, cameras=[])
    batch = world.windows(6, seed=0)
    batch.ignored[:, 5:] = True
    torch.manual_seed(1)
    loss, _ = policy.loss(batch)
    assert policy.real_share(batch).item() == pytest.approx(5 / 8)
    if name == "bc":  # a denoiser sees the whole noisy chunk, its ignored part too
        batch.actions[:, 5:] = 1e3
        assert torch.equal(policy.loss(batch)[0], loss)
        alone, _ = make(name, cameras=[]).loss(Batch(batch.observation, batch.actions, batch.ignored & False))
        assert alone > loss
    batch.ignored[:] = True
    loss, _ = policy.loss(batch)
    assert loss.item() == 0
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in policy.parameters() if p.grad is not None)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_rows_draw_their_own_noise(make, world, sampler):
    policy = make("diffusion", cameras=[]).eval()
    policy.config.sampler = sampler
    batch = world.windows(5, seed=0)
    seeds = [11, 12, 13, 14, 11]
    acted = policy.act(rows(batch, slice(None)), seeds)
    order = [3, 0, 4, 1, 2]
    shuffled = policy.act(rows(batch, order), [seeds[i] for i in order])
    torch.testing.assert_close(shuffled, acted[order], rtol=1e-4, atol=1e-5)
    alone = policy.act(rows(batch, slice(2, 3)), [13])
    torch.testing.assert_close(alone, acted[2:3], rtol=1e-4, atol=1e-5)
    assert torch.equal(policy.act(rows(batch, slice(None)), seeds), acted)
    assert not torch.allclose(policy.act(rows(batch, slice(2, 3)), [14]), alone)
    torch.manual_seed(0)
    free = policy.act(batch.observation)
    torch.manual_seed(0)
    assert torch.equal(policy.act(batch.observation), free)
    assert not torch.equal(policy.act(batch.observation), free)


def test_the_encoder_runs_once_an_observation(make, world):
    policy = make("diffusion", cameras=["front"]).eval()
    calls = []
    handle = policy.conditioning.encoder.register_forward_hook(lambda *_: calls.append(1))
    policy.act(world.windows(2, seed=0).observation, [0, 1])
    handle.remove()
    assert len(calls) == 1


def test_config_and_inputs_are_checked(make, world, encoder):
    with pytest.raises(UserError, match="Did you mean 'diffusion'"):
        build_policy("difusion", BCConfig(), world.spec, world.statistics, None)
    with pytest.raises(UserError, match="takes a BCConfig, not a DiffusionConfig"):
        build_policy("bc", DiffusionConfig(), world.spec, world.statistics, None)
    with pytest.raises(UserError, match=r"an encoder but no cameras: .* \(the demonstrations have front, "):
        build_policy("bc", BCConfig(), world.spec, world.statistics, encoder)
    with pytest.raises(UserError, match="is already a policy called 'bc'"):
        register("bc", POLICIES["flow"].policy)
    with pytest.raises(UserError, match="has the same config class as 'bc'"):
        register("bc_again", POLICIES["bc"].policy)
    with pytest.raises(UserError, match="requires action_normalisation = min_max"):
        DiffusionConfig(action_normalisation="mean_std")
    with pytest.raises(UserError, match="train_steps = 100"):
        DiffusionConfig(inference_steps=200)
    policy = make("bc", cameras=[])
    assert get_policy_name(policy) == "bc"
    with pytest.raises(UserError, match="2 seeds for 3"):
        policy.act(world.windows(3, seed=0).observation, [1, 2])
    batch = world.windows(3, seed=0)
    batch.actions = batch.actions[:, :4]
    with pytest.raises(UserError, match=r"\(4, 3\).*\(8, 3\)"):
        policy.loss(batch)


def test_a_method_that_gives_another_shape_is_named(make, world, monkeypatch):
    """Sums of errors and chunks that are too short would broadcast, or come out later."""
    policy, batch = make("bc", cameras=[]), world.windows(3, seed=0)
    monkeypatch.setattr(policy, "errors", lambda seen, actions, ignored: actions.abs().mean(2))
    with pytest.raises(UserError, match=r"`errors` of BCPolicy returned shape \(3, 8\), .* \(3, 8, 1\) or \(3, 8, 3\)"):
        policy.loss(batch)
    monkeypatch.setattr(policy, "errors", lambda seen, actions, ignored: actions.abs().mean(1, keepdim=True))
    with pytest.raises(UserError, match=r"returned shape \(3, 1, 3\)"):
        policy.loss(batch)
    monkeypatch.setattr(policy, "sample", lambda seen, seeds: torch.zeros(3, 2, 3))
    with pytest.raises(UserError, match=r"`sample` of BCPolicy returned shape \(3, 2, 3\), .* \(3, 8, 3\)"):
        policy.act(batch.observation)
