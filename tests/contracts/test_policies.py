"""One suite for every registered policy, with its default config (smaller where that is large), however it sees.

A new policy is tested by being registered, or by being installed as a package with an entry point; then
`pytest tests/contracts/test_policies.py -k NAME` runs what concerns it alone.
"""

import dataclasses

import demo_data
import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pixio_robot import types
from pixio_robot.data.stats import Range, Statistics
from pixio_robot.types import Batch, CameraSpec, Observation
from pixio_robot.vision.config import EncoderConfig
from pixio_robot.vision.pixio import PixioEncoder
from policies.chunking import ChunkedActor
from policies.config import ConditioningConfig
from policies.persistence import load_policy, save_policy
from policies.registry import build_policy, get_policy_entry, list_policy_names

SIGHTS = ("blind", "frozen", "cached", "adapted")
SPEC = dataclasses.replace(
    demo_data.SPEC,
    control_hz=20.0,
    cameras={"front": CameraSpec(height=16, width=24), "hand": CameraSpec(height=16, width=16)},
    state_names=("a [m]", "b [rad]", "c [m]"),
    action_names=("x [m]", "y [m]", "constant"),
)
SMALL = {
    "act": {"horizon": 8, "dim_model": 32, "n_heads": 4, "dim_feedforward": 64, "action_normalisation": "min_max"},
    "bc_rnn": {"horizon": 4, "rnn_hidden_dim": 64},
}
LOW, HIGH = torch.tensor([-0.1, 2.0, 5.0]), torch.tensor([0.3, 8.0, 5.0])


def make_batch(count: int, policy, sight: str) -> Batch:
    generator = torch.Generator().manual_seed(count)
    steps = policy.observation_steps
    images = {
        name: torch.randint(
            0, 256, (count, steps, camera.height, camera.width, 3), dtype=torch.uint8, generator=generator
        )
        for name, camera in SPEC.cameras.items()
        if name in policy.cameras
    }
    observation = Observation(images, torch.randn(count, steps, 3, generator=generator))
    if sight == "cached":
        encode = policy.conditioning.encoder
        features = {
            name: encode(value.flatten(0, 1)).map(lambda x: x.unflatten(0, (count, steps)))
            for name, value in images.items()
        }
        observation = Observation({}, observation.state, features)
    actions = LOW + (HIGH - LOW) * torch.rand(count, policy.horizon, 3, generator=generator)
    ignored = torch.zeros(count, policy.horizon, dtype=torch.bool)
    ignored[0, -2:] = True
    return Batch(observation, actions, ignored)


@pytest.fixture(params=SIGHTS)
def sight(request) -> str:
    return request.param


@pytest.fixture(params=list_policy_names())
def name(request) -> str:
    return request.param


@pytest.fixture(params=[1, 2], ids=["1 frame", "2 frames"])
def policy(request, name, sight):
    encoder = PixioEncoder(EncoderConfig(size="micro", patch=8, image_size=16), seed=0)
    encoder.requires_grad_(sight == "adapted")
    conditioning = ConditioningConfig(cameras=[] if sight == "blind" else ["hand", "front"])
    config = get_policy_entry(name).config(
        conditioning=conditioning, observation_steps=request.param, **SMALL.get(name, {})
    )
    statistics = make_statistics(-np.ones(3), np.ones(3), LOW.numpy(), HIGH.numpy())
    torch.manual_seed(0)
    return build_policy(name, config, SPEC, statistics, None if sight == "blind" else encoder)


def make_statistics(state_low, state_high, action_low, action_high) -> Statistics:
    def span(low, high):
        middle = (low + high) / 2
        return Range(low, high, middle, (high - low) / 4, low, low, middle, high, high)

    return Statistics(span(state_low, state_high), span(action_low, action_high))


@pytest.mark.parametrize("policy", [2], indirect=True, ids=["2 frames"])
def test_it_learns_and_acts_in_bfloat16(policy, sight):
    """`loop.dtype=auto` does so on a GPU, where tensors that autocast rounds meet others that it leaves in float32."""
    batch = make_batch(4, policy, sight)
    policy.prepare([batch.observation])
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = policy.loss(batch)
        loss.backward()
        actions = policy.eval().act(batch.observation, [1, 2, 3, 4])
    assert loss.dtype == torch.float32
    assert actions.dtype == torch.float32
    assert torch.isfinite(actions).all()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in policy.parameters())


def test_it_is_a_policy(policy, sight):
    assert isinstance(policy, types.TrainablePolicy)
    assert isinstance(policy, torch.nn.Module)
    assert policy.spec == SPEC
    assert list(policy.cameras) == ([] if sight == "blind" else ["hand", "front"])


def test_loss_trains_what_should_be_trained(policy, sight):
    policy.train()
    batch = make_batch(4, policy, sight)
    policy.prepare([batch.observation])
    loss, metrics = policy.loss(batch)
    assert loss.shape == ()
    assert torch.isfinite(loss)
    assert all(value.shape == () and not value.requires_grad for value in metrics.values())
    loss.backward()
    encoder = policy.conditioning.encoder
    frozen = [] if encoder is None else [f"conditioning.encoder.{n}" for n, _ in encoder.named_parameters()]
    for parameter_name, parameter in policy.named_parameters():
        trained = sight == "adapted" or parameter_name not in frozen
        assert (parameter.grad is not None) == trained, parameter_name
    optimiser = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], lr=1e-3)
    torch.manual_seed(1)
    before = policy.loss(batch)[0].item()
    for _ in range(8):
        optimiser.zero_grad()
        torch.manual_seed(1)
        policy.loss(batch)[0].backward()
        optimiser.step()
    torch.manual_seed(1)
    assert policy.loss(batch)[0].item() < before


def test_actions_are_in_the_physical_range_and_repeat(policy, sight):
    policy.eval()
    observation = make_batch(3, policy, sight).observation
    seeds = [5, 6, 7]
    actions = policy.act(observation, seeds)
    assert actions.shape == (3, policy.horizon, 3)
    assert actions.dtype == torch.float32
    assert not actions.requires_grad
    assert ((actions >= LOW) & (actions <= HIGH)).all()
    assert torch.equal(policy.act(observation, seeds), actions)
    assert policy.draws != torch.equal(policy.act(observation, [8, 9, 10]), actions)


def test_rows_do_not_mix(policy, sight):
    policy.eval()
    observation = make_batch(3, policy, sight).observation
    actions = policy.act(observation, [5, 6, 7])
    last = Observation(
        {name: images[2:] for name, images in observation.images.items()},
        observation.state[2:],
        {name: features.map(lambda x: x[2:]) for name, features in observation.features.items()},
    )
    torch.testing.assert_close(policy.act(last, [7]), actions[2:], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("sight", ["cached"], indirect=True)
def test_cached_features_stand_for_images(policy):
    policy.eval()
    seen, cached = (make_batch(3, policy, how) for how in ("frozen", "cached"))
    seeds = [1, 2, 3]
    expected = policy.act(seen.observation, seeds)
    torch.testing.assert_close(policy.act(cached.observation, seeds), expected, rtol=1e-3, atol=1e-4)
    losses = []
    for batch in (seen, cached):
        torch.manual_seed(0)
        losses.append(policy.loss(batch)[0])
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-3, atol=1e-4)


def test_save_and_load(policy, sight, tmp_path):
    policy.eval()
    observation = make_batch(2, policy, "frozen").observation
    save_policy(tmp_path / "policy", policy, encoder_source={}, extra={})
    assert torch.equal(load_policy(tmp_path / "policy").act(observation, [1, 2]), policy.act(observation, [1, 2]))


def test_slots_do_not_influence_each_other(policy, sight):
    """Whichever slots run beside it, and in whichever slot it runs: an episode of a seed goes the same, bit for bit."""
    rng = np.random.default_rng(0)
    frames = [
        types.Frame(
            {n: rng.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8) for n, c in SPEC.cameras.items()},
            rng.normal(size=3).astype(np.float32),
        )
        for _ in range(6)
    ]
    actor = ChunkedActor(policy, execute=3, batch_size=4)
    assert isinstance(actor, types.Actor)

    def run(slots: list[int], seeds: list[int]) -> dict[int, np.ndarray]:
        for slot, seed in zip(slots, seeds, strict=True):
            actor.reset(slot, seed)
        steps = [actor.act(dict.fromkeys(slots, frame)) for frame in frames]
        return {seed: np.stack([s[slot] for s in steps]) for slot, seed in zip(slots, seeds, strict=True)}

    alone = run([0], [42])[42]
    assert alone.shape == (6, 3)
    assert np.array_equal(run([7, 3, 5], [1, 42, 2])[42], alone)
    assert np.array_equal(run([0, 1, 2, 3, 4, 5], [9, 8, 7, 6, 5, 42])[42], alone)


@pytest.mark.parametrize("policy", [2], indirect=True, ids=["2 frames"])
def test_everything_it_computes_lies_on_its_device(policy, sight, monkeypatch):
    """PyTorch's fake tensors need no GPU: they have a device and no values, refuse operations across devices as a GPU
    would, and raise where a value is asked for, for which the host would have to wait."""
    monkeypatch.setattr(torch.backends.cudnn, "enabled", False)  # its own kernels, and the fused layer of
    monkeypatch.setattr(torch.backends.mha, "get_fastpath_enabled", lambda: False)  # transformers, want a driver
    conditioning = policy.config.conditioning
    monkeypatch.setattr(conditioning, "random_shift", 0 if sight in ("blind", "cached") else 2)
    batch = make_batch(4, policy, sight)
    with FakeTensorMode(), torch.no_grad():

        def fake(tensor: torch.Tensor) -> torch.Tensor:
            return torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda:0")

        policy._apply(fake)
        seen = batch.observation
        observation = Observation(
            {name: fake(images) for name, images in seen.images.items()},
            fake(seen.state),
            {name: features.map(fake) for name, features in seen.features.items()},
        )
        policy.train()
        loss, _ = policy.loss(Batch(observation, fake(batch.actions), fake(batch.ignored)))
        policy.eval()
        actions = policy.act(observation, [1, 2, 3, 4])
    assert loss.device.type == "cuda"
    assert actions.device.type == "cuda"
